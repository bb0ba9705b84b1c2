"""What a job will take before it runs: tokens, GPU hours, money, bytes and requests."""

from pipeline.cost.cost_estimate import Rate, Workload, captions_per_image, card_rates, estimate
from pipeline.cost.token_estimate import SampledRow, Tokens, guess_tokens, rows_with_fields, staged_tokens

__all__ = [
    "Rate",
    "SampledRow",
    "Tokens",
    "Workload",
    "captions_per_image",
    "card_rates",
    "estimate",
    "guess_tokens",
    "rows_with_fields",
    "staged_tokens",
]
