"""Drivers, retries, crashes, lost answers and zombies in any order.

The committed file is one, whole, and changes only by a retry that found it as it stands: once, and for the better.
"""

import contextlib
import uuid
from dataclasses import dataclass

import pyarrow as pa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pipeline.errors import PipelineError
from pipeline.ledger.caption_table import from_parquet
from pipeline.ledger.footer import read_footer
from pipeline.ledger.fragments import FragmentInfo, read_fragment_info, write_fragment
from pipeline.ledger.layout import fragment_path
from pipeline.ledger.retry_rows import RetryRows, find_retry_rows, replace_rows
from pipeline.ledger.shard_plan import remaining
from pipeline.ledger.staging_cleanup import clean
from pipeline.ledger.verification import verify_tree
from schemas.caption_row import CAPTION_ROW
from schemas.status import Status
from tests.ledger.faults import Crash, crash, dying, losing_answers
from tests.ledger.world import (
    NUM_IMAGES,
    PLAN,
    RUN,
    SHARD,
    caption_row,
    commit,
    committed,
    paths,
    resume,
    stage,
    violations,
)
from tests.memory_store import MemoryStore

DRIVERS = st.sampled_from(["one", "two", "three"])
RETRIES = st.sampled_from(["one", "two"])
LOST = st.sampled_from([TimeoutError, ConnectionError, FileExistsError])


@dataclass
class Retry:
    """What a `retry --rows` has in hand."""

    retry_rows: RetryRows
    base: bytes
    """The file in which it found them."""
    rows: tuple[int, ...]
    """Asked again."""
    fragment: str


class OneShard(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.store = MemoryStore(f"memory://{uuid.uuid4().hex}")
        self.file = None  # the committed file, as it must stand

    @rule()
    def sweep(self):
        clean(self.store, RUN, PLAN)

    @invariant()
    def one_file_whole_and_as_it_was_left(self):
        assert paths(self.store, "captions") in ([], [f"captions/{SHARD.path}.parquet"])
        if paths(self.store, "captions"):
            self.file = self.file or committed(self.store)
            assert committed(self.store) == self.file
            assert violations(self.store) == []
        else:
            assert self.file is None

    def teardown(self):
        """Whatever happened: one more run finishes the shard."""
        resume(self.store)
        self.one_file_whole_and_as_it_was_left()
        assert verify_tree(self.store, PLAN).violations == ()
        clean(self.store, RUN, PLAN)
        assert paths(self.store) == [f"captions/{SHARD.path}.parquet"]


class Ledger(OneShard):
    """One shard from nothing to its commit, and after it."""

    def __init__(self):
        super().__init__()
        self.known = {"one": {}, "two": {}, "three": {}}  # a driver's memory: fragment -> rows

    @rule(driver=DRIVERS)
    def start(self, driver):
        """A driver starts anew: it knows what the store shows. One that never does so again is a zombie."""
        left = remaining(self.store, PLAN).fragments.get(SHARD.path, ())
        actual = [read_fragment_info(self.store, path, RUN, SHARD) for path in left]
        self.known[driver] = {facts.path: set(facts.rows) for facts in actual if isinstance(facts, FragmentInfo)}

    @rule(driver=DRIVERS, first=st.integers(0, NUM_IMAGES - 1), count=st.integers(1, NUM_IMAGES))
    def stage(self, driver, first, count):
        rows = list(range(first, min(first + count, NUM_IMAGES)))
        self.known[driver][stage(self.store, rows)] = set(rows)

    @rule(driver=DRIVERS, num=st.integers(1, 3), when=st.sampled_from(["before", "after"]))
    def die_while_staging(self, driver, num, when):
        try:
            stage(dying(self.store, num, when, crash), [0, 1])
        except Crash:
            self.known[driver] = {}

    @rule(cut=st.integers(0, 2000))
    def leave_a_torn_fragment(self, cut):
        whole = self.store.get(stage(self.store, [0, 1, 2]))
        self.store.put(fragment_path(SHARD.path, 0, uuid.uuid4().hex), whole[: min(cut, len(whole) - 1)])

    @rule(driver=DRIVERS)
    def commit(self, driver):
        self.try_commit(driver, self.store)

    @rule(driver=DRIVERS, err=LOST, times=st.integers(1, 2))
    def commit_with_lost_answers(self, driver, err, times):
        self.try_commit(driver, losing_answers(self.store, err(), times))

    @rule(driver=DRIVERS, num=st.integers(1, 12), when=st.sampled_from(["before", "after"]))
    def die_while_committing(self, driver, num, when):
        try:
            self.try_commit(driver, dying(self.store, num, when, crash))
        except Crash:
            self.known[driver] = {}

    def try_commit(self, driver, store):
        was_committed = bool(paths(self.store, "captions"))
        covered = set().union(*self.known[driver].values()) if self.known[driver] else set()
        try:
            result = commit(store, list(self.known[driver]))
        except PipelineError:
            gone = set(self.known[driver]) - set(paths(self.store, "staging"))
            assert not was_committed
            assert gone or len(covered) < NUM_IMAGES
        else:
            assert result.won == (not was_committed)


class Retries(OneShard):
    """A committed shard, and two `retry --rows` at once beside drivers that come too late."""

    def __init__(self):
        super().__init__()
        self.retries = {}
        resume(self.store)

    @initialize(well=st.booleans(), also=st.booleans())
    def both_ask(self, well, also):
        self.file = committed(self.store)
        self.ask_again("one", 2, well)
        self.ask_again("two", 2, also)

    @rule(retry=RETRIES, num=st.sampled_from([1, 2, 2, 2]), well=st.booleans())
    def ask_again(self, retry, num, well):
        """Find what failed, and ask one or both of the two images again; they end well or fail once more."""
        self.retries.pop(retry, None)
        retry_rows = find_retry_rows(self.store, RUN, SHARD, (Status.FAILED,))
        if retry_rows:
            rows = retry_rows.rows[:num]
            self.retries[retry] = Retry(retry_rows, self.file, rows, stage_again(self.store, rows, well=well))

    @rule(retry=RETRIES)
    def mend(self, retry):
        self.try_mend(retry, self.store)

    @rule(retry=RETRIES, err=LOST, times=st.integers(1, 2))
    def mend_with_lost_answers(self, retry, err, times):
        self.try_mend(retry, losing_answers(self.store, err(), times, "replace"))

    @rule(retry=RETRIES, num=st.sampled_from([1, 2, 3, 3, 3, 4, 5]), when=st.sampled_from(["before", "after"]))
    def die_while_mending(self, retry, num, when):
        try:
            self.try_mend(retry, dying(self.store, num, when, crash))
        except Crash:
            self.retries.pop(retry, None)

    @precondition(lambda self: len(self.retries) == 2)
    @rule(at=st.sampled_from(["get_versioned", "replace"]), dies=st.booleans())
    def mend_two_at_once(self, at, dies):
        """The second does its mending before the first looks, or between its look and its replacement.

        It may die once it has replaced the file, and then leaves the first one's fragment in staging.
        """

        def second():
            with contextlib.suppress(Crash):
                self.try_mend("two", dying(self.store, 3, "after", crash) if dies else self.store)

        self.try_mend("one", Between(self.store, at, second))

    def try_mend(self, name, store):
        retry = self.retries.get(name)
        if not retry:
            return
        attempt = uuid.uuid4().hex
        try:
            result = replace_rows(store, RUN, SHARD, retry.retry_rows, [retry.fragment], attempt)
        except PipelineError:
            assert not self.store.exists(retry.fragment) or retry.rows != retry.retry_rows.rows
        except Crash:
            self.take_replacement(retry, attempt)
            raise
        else:
            assert self.take_replacement(retry, attempt) == result.won

    def take_replacement(self, retry, attempt):
        """Whether the file is now that of this attempt, which it may be only if it was what the retry had read."""
        now = committed(self.store)
        if read_footer(now)[0].attempt != attempt:
            return False
        assert self.file == retry.base
        assert changes_are_for_the_better(self.file, now, retry.retry_rows.rows)
        self.file = now
        return True

    @rule()
    def come_back_from_the_dead(self):
        """A driver that had all its fragments and slept through the commit."""
        assert not commit(self.store, [stage(self.store, range(NUM_IMAGES))]).won


class Between:
    """A store in which something happens just before the first call of this name."""

    def __init__(self, store, name, act):
        self.store, self.name, self.act = store, name, act

    def __getattr__(self, name):
        if name == self.name:
            act, self.act = self.act, lambda: None
            act()
        return getattr(self.store, name)


def stage_again(store, rows, *, well):
    text = uuid.uuid4().hex
    end = {"status": "ok", "reason": None, "message": None, "caption": text} if well else {"message": text}
    made = [caption_row(row, slot, text) | end for row in rows for slot in RUN.slots]
    return write_fragment(store, RUN, SHARD, NUM_IMAGES, pa.Table.from_pylist(made, schema=CAPTION_ROW))


def changes_are_for_the_better(old, new, rows):
    pairs = zip(from_parquet(old).to_pylist(), from_parquet(new).to_pylist(), strict=True)
    return all(
        was == now or (was["row"] in rows and was["status"] == Status.FAILED and now["attempts"] == was["attempts"] + 1)
        for was, now in pairs
    )


Ledger.TestCase.settings = settings(max_examples=40, stateful_step_count=12, deadline=None, print_blob=True)
Retries.TestCase.settings = settings(Ledger.TestCase.settings, stateful_step_count=8)
TestLedger = Ledger.TestCase
TestRetries = Retries.TestCase
