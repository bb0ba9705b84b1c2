"""The requests for each image: which prompt it gets, and the exact words."""

from pipeline.prompts.request import EXISTING, Request, build_request, without_prompt
from pipeline.prompts.request_sampler import RequestSampler, caption_mistakes, check_captions, draw_seed

__all__ = [
    "EXISTING",
    "Request",
    "RequestSampler",
    "build_request",
    "caption_mistakes",
    "check_captions",
    "draw_seed",
    "without_prompt",
]
