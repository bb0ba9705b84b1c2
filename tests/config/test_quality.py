"""The quality section refuses what it could not honour."""

import pytest

from pipeline.config import parse_job
from pipeline.errors import ConfigError


def job(**rest):
    return parse_job(
        {"source": "in", "output": "out", "model": "standin", "captions": {"slot": "s", "mode": "descriptive"}, **rest}
    )


@pytest.mark.parametrize(
    ("quality", "message"),
    [
        ({"rules": [{"name": "empty"}]}, r"quality.rules.0: rule empty has no condition"),
        ({"rules": [{"name": "r", "pattern": "("}]}, r"quality.rules.0.pattern: found '\('; not a regular expression"),
        ({"rules": [{"name": "r", "min_words": 1}] * 2}, "rule names r repeat"),
        ({"rules": [{"name": "r", "min_words": 9, "max_words": 3}]}, "min_words=9 is above max_words=3"),
        ({"tags": {"normalize": False, "underscores": "spaces"}}, "need normalize: true"),
        ({"truncated": "drop"}, "quality.truncated: found 'drop'"),
        ({"actions": {"loop": "no"}}, "quality.actions.loop: found 'no'"),
        ({"retry": {"attempts": 11}}, "quality.retry.attempts: found 11"),
    ],
)
def test_a_wrong_setting_is_named(quality, message):
    with pytest.raises(ConfigError, match=message):
        job(quality=quality)


def test_a_greedy_run_does_not_retry_the_same_request():
    greedy = {"temperature": 0}
    with pytest.raises(ConfigError, match="the same greedy request again"):
        job(sampling=greedy, quality={"retry": {"temperature_add": 0}})
    for retry in ({"attempts": 0, "temperature_add": 0}, {"temperature_add": 0, "repetition_penalty": 1.1}, {}):
        job(sampling=greedy, quality={"retry": retry})


def test_words_of_a_rule_may_stand_without_brackets():
    [rule] = job(quality={"rules": [{"name": "r", "forbidden": "watermark", "modes": "descriptive"}]}).quality.rules
    assert (rule.forbidden, rule.modes) == (("watermark",), ("descriptive",))
