"""The shares of tasks and gen_meta that a config sets, and a chi-square test of counts against them.

Expected shares follow from the config and from the fields of the records. They are not measured, so a wrong renderer
cannot pass by agreeing with itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from scipy.stats import chi2

from pipeline.config import Preset, RenderConfig, TaskTables
from pipeline.corpus.records.corpus_record import Record
from schemas.corpus_row import Task

MIN_EXPECTED = 5.0
"""Cells with fewer expected rows are merged: below it the chi-square distribution does not hold."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """One chi-square test."""

    statistic: float
    degrees: int
    p: float
    """Probability of counts at least as far off if the shares hold; below 0.001 the renderer is wrong."""


def kind_of(record: Record) -> str | None:
    """Return the task table of a record, by its name in `TaskTables`; None if it can have no text."""
    if not record.general and not record.special:
        return "captions" if record.short and record.long else None
    if record.short and record.long:
        return "all"
    return "tags_long" if record.long else "tags_short" if record.short else "tags"


def style_name(config: RenderConfig, source: str) -> str:
    """Return the key of the style of a source."""
    starts = [name for name in config.styles if name != "default" and source.startswith(name)]
    return max(starts, key=len, default="default")


def expected_tasks(config: RenderConfig, style: str, kind: str) -> dict[Task, float]:
    """Return the share of each task among the texts of one style and kind of record; {} if there are no texts."""
    tables: TaskTables = config.styles[style].tasks
    weights: dict[Task, float] = getattr(tables, kind)
    if config.preset is Preset.DANTAGGEN and kind == "captions":
        return {}
    total = sum(weights.values())
    return {task: weight / total for task, weight in weights.items() if weight} if total else {}


def expected_gen_meta(config: RenderConfig, style: str) -> float:
    """Return the share of gen_meta among the texts of records that have a metadata line."""
    if not config.styles[style].metadata or config.preset is Preset.DANTAGGEN:
        return 0.0
    return (1 - config.drop_all_probability) * (1 - config.drop_some_probability) * config.gen_meta


def accept(observed: Mapping[str, int], expected: Mapping[str, float]) -> Acceptance:
    """Test counts against shares.

    Args:
        observed: counts by name.
        expected: shares by name, which add up to 1; any other name must not occur.
    """
    total = sum(observed.values())
    if any(count and not expected.get(name) for name, count in observed.items()):
        return Acceptance(float("inf"), len(expected), 0.0)
    cells: list[tuple[float, float]] = []
    rare_observed = rare_expected = 0.0
    for name, share in expected.items():
        if share * total < MIN_EXPECTED:
            rare_observed += observed.get(name, 0)
            rare_expected += share * total
        else:
            cells.append((observed.get(name, 0), share * total))
    if rare_expected:
        cells.append((rare_observed, rare_expected))
    statistic = sum((count - share) ** 2 / share for count, share in cells)
    degrees = len(cells) - 1
    return Acceptance(statistic, degrees, float(chi2.sf(statistic, degrees)) if degrees > 0 else 1.0)


def accept_share(hits: int, total: int, share: float) -> Acceptance:
    """Test the share of rows with a property, such as gen_meta."""
    return accept({"yes": hits, "no": total - hits}, {"yes": share, "no": 1 - share})
