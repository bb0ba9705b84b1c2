"""What the model is asked: the author's own words, by generation, and which of them each image gets."""

from pipeline.prompts.build_request import Request, build_request
from pipeline.prompts.catalog import GENERATIONS, Generation, Mode, catalog_digest, generation_of, load_generation
from pipeline.prompts.request_sampler import RequestSampler, caption_mistakes, check_captions, draw_seed

__all__ = [
    "GENERATIONS",
    "Generation",
    "Mode",
    "Request",
    "RequestSampler",
    "build_request",
    "caption_mistakes",
    "catalog_digest",
    "check_captions",
    "draw_seed",
    "generation_of",
    "load_generation",
]
