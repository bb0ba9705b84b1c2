"""Precision and recall of every rule on the labelled set: `python -m tests.quality.score`."""

from collections import Counter, defaultdict
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from pipeline.config import QualityConfig
from pipeline.quality import Verdict, evaluate, prepare_rules
from schemas.status import Reason
from tests.quality.labelled import Labelled, labelled

RULES = prepare_rules(QualityConfig(), None)


@dataclass
class Score:
    """Of one reason: texts that bear it, that were given it, and both."""

    labelled: int = 0
    given: int = 0
    right: int = 0

    @property
    def recall(self) -> float:
        return self.right / self.labelled if self.labelled else 1.0

    @property
    def precision(self) -> float:
        return self.right / self.given if self.given else 1.0


def judged() -> list[tuple[Labelled, Verdict]]:
    return [(item, evaluate(RULES, item, item.text, item.finish_reason)) for item in labelled()]


def scores() -> dict[Reason, Score]:
    result: defaultdict[Reason, Score] = defaultdict(Score)
    for item, verdict in judged():
        if item.reason:
            result[item.reason].labelled += 1
            result[item.reason].right += item.reason is verdict.reason
        if verdict.reason:
            result[verdict.reason].given += 1
    return dict(result)


def false_rejects() -> list[tuple[Labelled, Verdict]]:
    return [(item, verdict) for item, verdict in judged() if not item.reason and verdict.reason]


def missed(reason: Reason) -> list[tuple[Labelled, Verdict]]:
    return [(item, verdict) for item, verdict in judged() if item.reason is reason and verdict.reason is not reason]


def main() -> None:
    console = Console(soft_wrap=True, highlight=False)
    table = Table("rule", "texts", "recall", "precision", box=None)
    for reason, score in scores().items():
        table.add_row(str(reason), str(score.labelled), f"{score.recall:.3f}", f"{score.precision:.3f}")
    console.print(table)
    by_rule = Counter(str(verdict.message).split(":")[0] for item, verdict in judged() if verdict.reason is Reason.LOOP)
    console.print("loops by rule: " + ", ".join(f"{rule} {count}" for rule, count in by_rule.most_common()))
    kinds = Counter(item.kind for item in labelled() if not item.reason)
    console.print(
        f"clean: {sum(kinds.values())} texts: " + ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    )
    console.print(f"false rejects: {len(false_rejects())}; texts in all: {len(labelled())}")
    for item, verdict in [*false_rejects(), *(pair for reason in scores() for pair in missed(reason))]:
        console.print(f"  {item.kind}: {verdict.message}: {item.text[:100]!r}", markup=False)


if __name__ == "__main__":
    main()
