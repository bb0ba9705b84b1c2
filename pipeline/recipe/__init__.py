"""All that can change a caption, as one record with a fingerprint: a run is bound to it."""

from pipeline.recipe.model import Weights, find_weights
from pipeline.recipe.recipe import QUALITY_RULES, Recipe, build_recipe

__all__ = ["QUALITY_RULES", "Recipe", "Weights", "build_recipe", "find_weights"]
