"""The requests for each image: which prompt it gets, and the exact words."""

from pipeline.prompts.request import EXISTING, Request, build_request, without_prompt
from pipeline.prompts.request_sampler import RequestSampler, caption_mistakes, check_captions
from pipeline.prompts.row_fields import CountTokens
from pipeline.prompts.seeded_draws import draw_seed
from pipeline.prompts.template import Given

__all__ = [
    "EXISTING",
    "CountTokens",
    "Given",
    "Request",
    "RequestSampler",
    "build_request",
    "caption_mistakes",
    "check_captions",
    "draw_seed",
    "without_prompt",
]
