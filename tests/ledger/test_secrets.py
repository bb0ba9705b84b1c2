"""No credential reaches a message, a log line or a stored object."""

import logging

import pytest

from pipeline.errors import PipelineError
from pipeline.ledger.quarantine import Quarantined, put_quarantine
from pipeline.ledger.run_record import claim_run
from pipeline.ledger.shard_plan import claim_plan
from pipeline.ledger.staging_cleanup import clean
from pipeline.ledger.verification import verify_tree
from pipeline.storage import open_store, probe, publish
from tests.ledger.test_run_record import ABOUT, Recipe
from tests.ledger.world import PLAN, RUN, SHARD, committed, paths, resume
from tests.storage.scripted_s3 import scripted_s3

MARKER = "marker-5e0f3c"


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"])
def test_no_secret_is_stored_or_logged_by_a_whole_run(s3, monkeypatch, caplog, name):
    monkeypatch.setenv(name, MARKER)
    with caplog.at_level(logging.INFO, logger="pipeline"):
        probe(s3)
        claim_run(s3, Recipe(), ABOUT)
        claim_plan(s3, [SHARD])
        resume(s3)
        put_quarantine(s3, Quarantined(shard="x.tar", message="m", attempts=1, time="t", versions={}))
        clean(s3, RUN, PLAN)
        verify_tree(s3, PLAN)
    assert committed(s3)
    for path in paths(s3):
        assert MARKER.encode() not in s3.get(path)
    assert MARKER not in caplog.text + repr(s3)


@pytest.mark.parametrize("fault", ["signature", "refuse", "unavailable"])
def test_no_secret_is_in_the_messages_of_failures(monkeypatch, caplog, fault):
    monkeypatch.setattr(publish, "TRIES", 1)
    with scripted_s3(monkeypatch, secret=MARKER) as server:
        server.faults = [fault] * 20
        with pytest.raises(PipelineError) as caught:
            probe(open_store("s3://bucket/out"))
    messages, err = [caplog.text], caught.value
    while err:
        messages.append(f"{err} {err!r}")
        err = err.__cause__ or err.__context__
    assert MARKER not in "".join(messages)
    assert "s3://bucket/out/staging/.probe-" in messages[1]
