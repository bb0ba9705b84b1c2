"""The selection of an output: that of its first run, until a generation of the plan changes it.

A change only adds captions. Rows that an earlier selection has selected stay as they are; rows that were skipped and
are selected now are captioned. So it is for the run to say which rows these are, and a plan needs only the selections.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from pipeline.config import SourceConfig
from pipeline.config.source_config import SELECTION_KEYS
from pipeline.errors import ConfigError, OutputMismatch, StoreError
from pipeline.ledger.limit_record import EndRows
from pipeline.ledger.run_record import differences
from pipeline.ledger.shard_plan import Plan
from pipeline.selection import Selection, selection_of
from pipeline.storage import Store


@dataclass(frozen=True, slots=True)
class SelectionInForce:
    """The selection of one generation of a plan."""

    source: SourceConfig
    selection: Selection
    end_rows: EndRows

    def of_shard(self, path: str) -> Selection:
        """Return it with the end of the limit in a shard; its duplicates are not known here."""
        return self.selection.up_to(self.end_rows.get(path))


def current_selection(first: Mapping[str, Any], plan: Plan | None) -> Mapping[str, Any]:
    """Return the selection in force, as `RunRecord.selection`; `first` is that of the first run."""
    changed = plan.last_change if plan else None
    return changed.change.selection if changed and changed.change else first


def selections_in_force(
    store: Store, source: SourceConfig, first: Mapping[str, Any], plan: Plan, end_rows: EndRows
) -> list[SelectionInForce]:
    """Return the selection of each generation of a plan.

    Args:
        store: the output, for messages.
        source: of the output.
        first: the selection of the first run.
        plan: as stored.
        end_rows: of the first run's limit.

    Raises:
        StoreError: a stored selection is none.
    """
    current = _in_force(store, source, first, end_rows)
    selections: list[SelectionInForce] = []
    for generation in plan.generations:
        if generation.change:
            current = _in_force(store, source, generation.change.selection, generation.change.end_rows)
        selections.append(current)
    return selections


def in_force_since(selections: Sequence[SelectionInForce], generation: int) -> list[SelectionInForce]:
    """Return the different selections since a generation, the last one last; the items are those of `selections`."""
    return list({id(each): each for each in selections[generation:]}.values())


def _in_force(store: Store, source: SourceConfig, stored: Mapping[str, Any], end_rows: EndRows) -> SelectionInForce:
    config = with_selection(store, source, stored)
    return SelectionInForce(config, selection_of(config), end_rows)


def with_selection(store: Store, source: SourceConfig, stored: Mapping[str, Any]) -> SourceConfig:
    """Return a source with a stored selection in place of its own.

    Raises:
        StoreError: it is no selection.
    """
    try:
        parsed = SourceConfig.model_validate({"urls": source.urls, "captions": source.captions, **stored})
    except ValidationError as err:
        raise StoreError(
            f"{store.url}: its stored selection is damaged ({' '.join(str(err).split())}); restore run.json and plan/, "
            "or start a new output"
        ) from err
    return source.model_copy(update={name: getattr(parsed, name) for name in SELECTION_KEYS})


def refuse_other_selection(store: Store, stored: Mapping[str, Any], selection: Mapping[str, Any]) -> None:
    """Refuse to work on an output whose rows were selected otherwise.

    Raises:
        OutputMismatch: names what differs.
    """
    lines = selection_differences(stored, selection)
    if lines:
        listed = "\n  ".join(lines)
        raise OutputMismatch(
            f"{store.url}: has another selection of images than this run. They differ in\n  {listed}\n"
            "Change the config back; or change the selection of the output with `joyfleet caption --extend`, which "
            f"keeps the captions that it has; or give the run its own output: with `reuse: [{store.url}]` it takes "
            "over the captions that both select"
        )


def selection_differences(stored: Mapping[str, Any], selection: Mapping[str, Any]) -> list[str]:
    """Return the keys in which two selections differ, one a line."""
    return list(differences(stored, json.loads(json.dumps(selection)), "source"))


def refuse_impossible_change(store: Store, stored: Mapping[str, Any], selection: Mapping[str, Any]) -> None:
    """Refuse a change of the selection that an output cannot follow.

    Raises:
        ConfigError: it changes `duplicates`, or lowers or adds a limit.
    """
    where = f"{store.url}: --extend with another selection"
    duplicates = [line for line in selection_differences(stored, selection) if line.startswith("source.duplicates")]
    if duplicates:
        raise ConfigError(
            f"{where}: {'; '.join(duplicates)}; allowed: the same duplicates, since rows wait for the captions of "
            f"others. Give the run its own output: with `reuse: [{store.url}]` it takes over what both select"
        )
    old, new = stored.get("limit"), selection.get("limit")
    if new is not None and (old is None or new < old):
        raise ConfigError(
            f"{where}: source.limit: {old or 'not set'} in the output, {new} in this run; allowed: a larger limit or "
            f"none. Give the run its own output: with `reuse: [{store.url}]` it takes over these rows"
        )
