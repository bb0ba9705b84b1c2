"""CPU per caption of all quality rules: `python -m tests.benchmarks.quality_cost`.

Clean prose and clean tag lists of several lengths, whole verdicts, process time and not wall time:
the best of several rounds, because noise only ever adds.
"""

import random
import time

from pipeline.config import QualityConfig
from pipeline.quality import evaluate, prepare_rules
from tests.quality import texts
from tests.quality.labelled import PROMPT, TAG_PROMPT, Labelled

NUM_TEXTS = 200
ROUNDS = 15
RULES = prepare_rules(QualityConfig(), None)


def prose(rng: random.Random, num_words: int) -> Labelled:
    words = " ".join(rng.sample(texts.PROSE, 12)).split()[:num_words]
    return Labelled("prose", " ".join(words), "descriptive", PROMPT)


def tags(rng: random.Random, num_words: int) -> Labelled:
    return Labelled("tags", ", ".join(rng.sample(texts.GENERAL_TAGS, num_words)), "danbooru-tags", TAG_PROMPT)


def cost_us(captions: list[Labelled]) -> float:
    """Microseconds per caption."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        for item in captions:
            evaluate(RULES, item, item.text, "stop")
        best = min(best, time.process_time() - started)
    return best / len(captions) * 1e6


def main() -> None:
    """Print a line per form and length."""
    rng = random.Random(0)
    for make, lengths in ((prose, (30, 60, 120, 250, 500)), (tags, (30, 60, 120, 180))):
        for num_words in lengths:
            cost = cost_us([make(rng, num_words) for _ in range(NUM_TEXTS)])
            print(f"{make.__name__:6} {num_words:4} words  {cost:6.1f} us per caption")


if __name__ == "__main__":
    main()
