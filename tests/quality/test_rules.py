"""A quality rule is one module and one entry of a table: a toy rule runs end to end."""

import pytest

from pipeline.config import Action, QualityConfig, parse_job
from pipeline.errors import ConfigError
from pipeline.flow.prepared_job import check_job
from pipeline.quality import RULES, CheckedText, Finding, Rule
from schemas.status import Flag, Reason
from tests.run_in_process import draw_images, run_in_process

FIRST = {"special_tokens", "refusal", "loop", "prompt_echo", "foreign_script", "wrong_form"}


def find_colour(checked: CheckedText) -> Finding | None:
    return Finding("colour_word", checked.request.mode) if "colour" in checked.words else None


TOY = Rule(name="colour", default=Action.OFF, check=find_colour)


def job(tmp_path, **actions):
    return parse_job(
        {
            "source": str(tmp_path / "source"),
            "output": str(tmp_path / f"out-{'-'.join(actions.values())}"),
            "model": "standin",
            "captions": {"slot": "s", "mode": "descriptive"},
            "engine": {"kind": "echo"},
            "quality": {"actions": actions, "retry": {"attempts": 1}},
        }
    )


def test_a_toy_rule_rejects_flags_or_is_off(monkeypatch, tmp_path):
    monkeypatch.setitem(RULES, "colour", TOY)
    draw_images(tmp_path / "source", (40, 30))
    [rejected] = run_in_process(job(tmp_path, colour="reject"))
    assert (rejected["status"], rejected["reason"], rejected["attempts"]) == ("rejected", "colour", 2)
    assert (rejected["message"], rejected["earlier_reasons"]) == ("colour_word: descriptive", ["colour"])
    [flagged] = run_in_process(job(tmp_path, colour="flag"))
    assert (flagged["status"], flagged["flags"]) == ("ok", ["colour"])
    [off] = run_in_process(job(tmp_path, colour="off"))
    assert (off["status"], off["flags"]) == ("ok", [])


def test_a_new_rule_changes_a_fingerprint_only_where_it_is_on(monkeypatch, tmp_path):
    before = check_job(job(tmp_path))[0].fingerprint
    monkeypatch.setitem(RULES, "colour", TOY)
    assert [check_job(job(tmp_path, **actions))[0].fingerprint == before for actions in ({}, {"colour": "off"})] == [
        True,
        True,
    ]
    assert check_job(job(tmp_path, colour="flag"))[0].fingerprint != before


def test_an_unknown_rule_is_refused_with_the_allowed_ones(tmp_path):
    with pytest.raises(
        ConfigError, match=r"quality.actions.lop: unknown rule; allowed: special_.*; did you mean loop\?"
    ):
        check_job(job(tmp_path, lop="flag"))
    with pytest.raises(ConfigError, match=r"quality.actions.loop: found 'no'"):
        job(tmp_path, loop="no")


def test_the_rules_of_the_first_edition_stay_in_every_config_and_later_ones_are_off_by_default():
    assert QualityConfig().actions == {name: RULES[name].default for name in FIRST}
    assert QualityConfig(actions={"loop": "flag"}).actions == QualityConfig().actions | {"loop": Action.FLAG}
    assert all(rule.default is Action.OFF for name, rule in RULES.items() if name not in FIRST)
    assert all(Flag(name).value == Reason(name).value for name in FIRST)
