import json
from dataclasses import dataclass, field

import pytest

from pipeline.errors import ConfigError, OutputMismatch, StoreError
from pipeline.ledger.run_record import claim_run, differences, read_run
from tests.ledger.faults import losing_answers


@dataclass
class Recipe:
    fingerprint: str = "abc"
    fields: dict = field(
        default_factory=lambda: {
            "model": {"id": "standin", "revision": None},
            "captions": [{"slot": "long", "length": "long"}, {"slot": "tags"}],
            "formats": ("JPEG", "PNG"),
        }
    )


ABOUT = {"config": {"output": "x"}, "versions": {"joyfleet": "0.1.0"}}


def test_the_first_run_binds_the_output_and_the_same_recipe_continues(store):
    first = claim_run(store, Recipe(), ABOUT)
    again = claim_run(store, Recipe(), {"config": "of the second run"})
    assert first == again == read_run(store)
    assert again.about == ABOUT
    assert again.fingerprint == "abc"
    assert first.fields["formats"] == ["JPEG", "PNG"]


def test_another_recipe_is_refused_with_the_differing_fields(store):
    claim_run(store, Recipe(), ABOUT)
    other = Recipe("def")
    other.fields["captions"] = [{"slot": "long", "length": "short"}]
    other.fields["model"]["revision"] = "v2"
    other.fields["new"] = 1
    with pytest.raises(OutputMismatch) as caught:
        claim_run(store, other, ABOUT)
    message = str(caught.value)
    assert message.startswith(f"{store.url}: bound to recipe abc, but the recipe of this run is def. They differ in\n")
    assert message.endswith("Change the config back, or give the run its own output")
    for line in (
        "captions.0.length: 'long' in the output, 'short' in this run",
        "captions.1: {'slot': 'tags'} in the output, not set in this run",
        "model.revision: None in the output, 'v2' in this run",
        "new: not set in the output, 1 in this run",
    ):
        assert f"  {line}\n" in message
    assert "formats" not in message
    assert read_run(store).fingerprint == "abc"


def test_a_difference_in_the_fingerprint_alone_is_reported(store):
    claim_run(store, Recipe(), ABOUT)
    with pytest.raises(OutputMismatch, match="no field; another version of JoyFleet"):
        claim_run(store, Recipe("def"), ABOUT)


def test_differences_distinguish_types():
    assert list(differences({"a": 1, "b": [1, 2]}, {"a": 1, "b": [1, 2]})) == []
    assert list(differences({"a": 1}, {"a": True})) == ["a: 1 in the output, True in this run"]
    assert list(differences({"a": {"b": 1}}, {"a": [1]})) == ["a: {'b': 1} in the output, [1] in this run"]
    many = list(differences({str(i): i for i in range(30)}, {}))
    assert len(many) == 30


def test_a_long_list_of_differences_is_cut(store):
    claim_run(store, Recipe("abc", {str(i): i for i in range(30)}), ABOUT)
    with pytest.raises(OutputMismatch, match=r"\.\.\. and 10 more"):
        claim_run(store, Recipe("def", {}), ABOUT)


def test_a_lost_answer_still_binds(store):
    assert claim_run(losing_answers(store, TimeoutError()), Recipe(), ABOUT).about == ABOUT


def test_another_schema_version_is_refused(store):
    claim_run(store, Recipe(), ABOUT)
    record = json.loads(store.get("run.json")) | {"schema_version": "99"}
    store.put("run.json", json.dumps(record).encode())
    with pytest.raises(OutputMismatch, match=r"run\.json: schema version '99', and this JoyFleet writes '2'"):
        claim_run(store, Recipe(), ABOUT)


def test_a_folder_that_is_not_an_output_is_reported(store):
    with pytest.raises(ConfigError, match=r"no run\.json, so not an output of JoyFleet"):
        read_run(store)


def test_a_torn_record_is_refused(store):
    claim_run(store, Recipe(), ABOUT)
    whole = store.get("run.json")
    for length in range(len(whole)):
        store.put("run.json", whole[:length])
        with pytest.raises(StoreError, match=r"run\.json: damaged"):
            read_run(store)
