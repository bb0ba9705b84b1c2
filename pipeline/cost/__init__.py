"""What a job will take before it runs: tokens, GPU hours, money, bytes and requests."""

from pipeline.cost.cost_estimate import Rate, Workload, captions_per_image, card_rates, estimate
from pipeline.cost.token_estimate import Tokens, guess_tokens, staged_tokens

__all__ = [
    "Rate",
    "Tokens",
    "Workload",
    "captions_per_image",
    "card_rates",
    "estimate",
    "guess_tokens",
    "staged_tokens",
]
