"""Everything that can change a caption is in the recipe: rules, retry, loop stopping and the tags of a vocabulary."""

import pytest

from pipeline.config import parse_job
from pipeline.flow.prepared_job import check_job


def fingerprint(**rest):
    captions = {"slot": "s", "mode": "descriptive"}
    job = parse_job({"source": "in", "output": "out", "model": "standin", "captions": captions, **rest})
    return check_job(job)[0].fingerprint


@pytest.mark.parametrize(
    "changed",
    [
        {"sampling": {"stop_loops": False}},
        {"quality": {"truncated": "cut"}},
        {"quality": {"actions": {"refusal": "flag"}}},
        {"quality": {"retry": {"attempts": 1}}},
        {"quality": {"rules": [{"name": "r", "min_words": 3}]}},
    ],
)
def test_a_changed_rule_is_another_recipe(changed):
    assert fingerprint() == fingerprint()
    assert fingerprint(**changed) != fingerprint()


def test_a_time_limit_of_decoding_is_in_no_recipe():
    assert fingerprint(images={"timeout_s": 5}) == fingerprint()
    assert fingerprint(images={"max_pixels": 5}) != fingerprint()


def test_a_vocabulary_is_what_it_holds_wherever_it_lies(tmp_path):
    def with_tags(name, text):
        (tmp_path / name).write_text(text)
        return fingerprint(quality={"tags": {"vocabulary": str(tmp_path / name)}})

    first = with_tags("a.txt", "sky\nsea\n")
    assert first == with_tags("b.txt", "sea\nsky\n")
    assert len({first, with_tags("a.txt", "sky\n"), fingerprint()}) == 3
