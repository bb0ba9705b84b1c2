"""Everything that can change a caption, as one record with a fingerprint: an output is bound to it."""

from pipeline.recipe.recipe import ModelFacts, Recipe, build_recipe
from pipeline.recipe.weights import Weights, find_weights

__all__ = ["ModelFacts", "Recipe", "Weights", "build_recipe", "find_weights"]
