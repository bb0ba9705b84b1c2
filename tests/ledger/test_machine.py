"""Drivers, crashes, lost answers and zombies in any order: the committed file is one, whole, and never changes."""

import uuid

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pipeline.errors import PipelineError
from pipeline.ledger.clean import clean
from pipeline.ledger.fragments import FragmentFacts, read_fragment_facts
from pipeline.ledger.layout import fragment_path
from pipeline.ledger.plan import remaining
from pipeline.ledger.verify import verify_shard, verify_tree
from pipeline.storage import open_store
from tests.ledger.faults import Crash, crash, dying, losing_answers
from tests.ledger.world import KEYS, NUM_IMAGES, PLAN, RUN, SHARD, commit, committed, paths, resume, stage

DRIVERS = st.sampled_from(["one", "two", "three"])


class Ledger(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.store = open_store(f"memory://{uuid.uuid4().hex}")
        self.known = {"one": {}, "two": {}, "three": {}}  # a driver's memory: fragment -> rows
        self.first = None

    @rule(driver=DRIVERS)
    def start(self, driver):
        """A driver starts anew: it knows what the store shows. One that never does so again is a zombie."""
        left = remaining(self.store, PLAN).fragments.get(SHARD.path, ())
        found = [read_fragment_facts(self.store, path, RUN, SHARD) for path in left]
        self.known[driver] = {facts.path: set(facts.rows) for facts in found if isinstance(facts, FragmentFacts)}

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

    @rule(
        driver=DRIVERS, err=st.sampled_from([TimeoutError, ConnectionError, FileExistsError]), times=st.integers(1, 2)
    )
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

    @rule()
    def sweep(self):
        clean(self.store, RUN, PLAN)

    @invariant()
    def one_file_whole_and_never_changed(self):
        assert paths(self.store, "captions") in ([], [f"captions/{SHARD.path}.parquet"])
        if paths(self.store, "captions"):
            self.first = self.first or committed(self.store)
            assert committed(self.store) == self.first
            assert verify_shard(self.store, RUN, SHARD, NUM_IMAGES, KEYS) == []
        else:
            assert self.first is None

    def teardown(self):
        """Whatever happened: one more run finishes the shard."""
        resume(self.store)
        self.one_file_whole_and_never_changed()
        assert verify_tree(self.store, PLAN).violations == ()
        clean(self.store, RUN, PLAN)
        assert paths(self.store) == [f"captions/{SHARD.path}.parquet"]


Ledger.TestCase.settings = settings(max_examples=40, stateful_step_count=12, deadline=None, print_blob=True)
TestLedger = Ledger.TestCase
