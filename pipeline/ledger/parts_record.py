"""parts.json: into how many parts the drivers of an output divide its plan, one part each.

A shard belongs to a part by the hash of its path, so the parts of a plan that grows never change. The record is created
by one put-if-absent: two drivers cannot divide one plan in two ways.
"""

import hashlib
import json
import uuid
from dataclasses import dataclass, replace
from typing import Self

from pipeline.errors import ConfigError, OutputMismatch, StoreError
from pipeline.ledger.layout import PARTS
from pipeline.ledger.shard_plan import Plan
from pipeline.storage import Store, WriteResult, put_if_absent

MOST = 1000
"""Parts. A plan of 30,000 shards has 30 in each of so many."""


@dataclass(frozen=True, slots=True)
class Part:
    """One of the equal parts of a plan."""

    number: int
    """From 1."""
    of: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the part that a text such as `3/8` names.

        Raises:
            ConfigError: it is no such text.
        """
        number, _, of = text.partition("/")
        if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of) <= MOST):
            raise ConfigError(f"--part {text}: allowed: K/N with 1 <= K <= N <= {MOST}, such as 3/8")
        return cls(int(number), int(of))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def has(self, shard: str) -> bool:
        """Return whether the shard with this path belongs to it."""
        digest = hashlib.sha256(shard.encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") % self.of == self.number - 1

    def restrict(self, plan: Plan) -> Plan:
        """Return a plan with the shards of this part only."""
        return replace(plan, shards={path: shard for path, shard in plan.shards.items() if self.has(path)})


def claim_parts(store: Store, part: Part) -> None:
    """Fix the number of parts of an output, or check it.

    Raises:
        OutputMismatch: other runs divide the plan into another number of parts.
    """
    attempt = uuid.uuid4().hex
    existing = read_parts(store)
    if existing is None:
        data = json.dumps({"attempt": attempt, "parts": part.of}, indent=1).encode()
        if put_if_absent(store, PARTS, data, attempt) is not WriteResult.EXISTS:
            return
        existing = read_parts(store)
    if existing != part.of:
        raise OutputMismatch(
            f"{store.url}/{PARTS}: the runs of this output divide its plan into {existing} parts, found --part {part}; "
            f"parts of another number would overlap with them. Give --part K/{existing}, or leave --part out to "
            "caption whatever is left"
        )


def read_parts(store: Store) -> int | None:
    """Return the number of parts of an output; None if no run was given a part.

    Raises:
        StoreError: the record is damaged.
    """
    try:
        data = store.get(PARTS)
    except FileNotFoundError:
        return None
    try:
        return int(json.loads(data)["parts"])
    except (ValueError, KeyError, TypeError) as err:
        raise StoreError(f"{store.url}/{PARTS}: damaged ({err!r}); restore it, or start a new output") from err
