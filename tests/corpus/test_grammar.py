"""Each kind of fault in a text is reported at its position."""

import pytest

from pipeline.config import Preset, RenderConfig
from pipeline.corpus.text.render_texts import render_table
from pipeline.corpus.text.text_grammar import Rule, check_row, check_text, parse_text, profile_of
from tests.corpus.records import draw_records

V1 = profile_of(RenderConfig(preset=Preset.TIPO_V1))
V2 = profile_of(RenderConfig(preset=Preset.TIPO_V2_1))
DANTAGGEN = profile_of(RenderConfig(preset=Preset.DANTAGGEN))

WHOLE = """\
rating: safe
aspect ratio: 1.8
artist: one, two
target: <|very_short|> <|tag_to_short_to_long|> <|gen_meta|>
tag: 1girl, long hair, ^_^, smile
short: A girl smiles.
long: A girl with long hair smiles. The sign reads: hello.
Behind her is a wall.
quality: masterpiece, newest
meta: highres"""
DAN = """\
rating: safe
artist: <|empty|>
aspect ratio: 0.7
characters: <|empty|>
quality: <|empty|>
copyrights: vocaloid
target: <|very_short|>
general: 1girl, smile<|input_end|>long hair, wall"""

MUTATIONS = [
    # old text, new text, rule, and the text at the position of the fault
    ("rating: safe\n", "\nrating: safe\n", Rule.BLANK_LINE, "\nrating"),
    ("meta: highres", "meta: highres\n", Rule.BLANK_LINE, None),
    ("\nshort:", "\n\nshort:", Rule.BLANK_LINE, "\nshort:"),
    ("safe", "sa\rfe", Rule.CONTROL, "\rfe"),
    ("smile\n", "smi\tle\n", Rule.CONTROL, "\tle"),
    ("rating:", "ratings:", Rule.KEY, "ratings:"),
    ("aspect ratio:", "aspect_ratio:", Rule.KEY, "aspect_ratio:"),
    ("rating: safe", "rating:safe", Rule.KEY, "rating:safe"),
    ("artist:", "rating:", Rule.DOUBLE_KEY, "rating: one"),
    ("quality: masterpiece", "artist: masterpiece", Rule.DOUBLE_KEY, "artist: masterpiece"),
    ("one, two", "one,two", Rule.VALUE, "one,two"),
    ("one, two", "one, ", Rule.VALUE, "\ntarget"),
    ("one, two", "one,  two", Rule.VALUE, " two"),
    ("1.8", "1.80", Rule.ASPECT, "1.80"),
    ("1.8", "16:9", Rule.ASPECT, "16:9"),
    ("target: ", "goal: ", Rule.KEY, "goal: "),
    ("<|very_short|>", "<|tiny|>", Rule.TARGET, "<|tiny|>"),
    ("<|very_short|> ", "", Rule.TARGET, "target: "),
    ("<|tag_to_short_to_long|>", "<|tag_to_short|>", Rule.TARGET, "<|tag_to_short|>"),
    ("<|tag_to_short_to_long|> <|gen_meta|>", "<|gen_meta|> <|tag_to_short_to_long|>", Rule.TARGET, "target: "),
    ("<|very_short|> <|tag", "<|very_short|>  <|tag", Rule.TARGET, " <|tag"),
    ("<|very_short|>", "<|short|>", Rule.LENGTH, "<|short|>"),
    ("<|tag_to_short_to_long|>", "<|tag_to_long|>", Rule.SECTION, "short: A"),
    ("tag: 1girl", "general: 1girl", Rule.SECTION, "general: 1girl"),
    ("long: A girl", "long:A girl", Rule.SECTION, "long:A girl"),
    ("tag: 1girl", "tag: , 1girl", Rule.ITEM, ", 1girl"),
    ("tag: 1girl, long hair, ^_^, smile", "tag: ", Rule.ITEM, "\nshort"),
    ("^_^, smile", "^_^, ", Rule.ITEM, "\nshort"),
    ("long hair", "Long hair", Rule.CAPITALS, "Long hair"),
    ("1girl, long hair", "1girl, long_hair", Rule.UNDERSCORE, "_hair"),
    ("^_^, smile", "long hair, smile", Rule.DOUBLE_TAG, "long hair, smile"),
    ("long hair, ^", "long  hair, ^", Rule.BLANKS, "  hair"),
    ("short: A girl smiles.", "short:  A girl smiles.", Rule.BLANKS, " A girl smiles."),
    ("Behind her is", "Caption: Behind her is", Rule.COLON, ": Behind"),
    ("hello.", "<|long|>.", Rule.MARK, "<|long|>."),
    ("Behind", "</s>Behind", Rule.MARK, "</s>"),
    ("artist: one", "artist: <|empty|>", Rule.MARK, "<|empty|>"),
    ("\nquality: masterpiece, newest\nmeta: highres", "", Rule.GEN_META, None),
    (" <|gen_meta|>", "", Rule.COLON, ": masterpiece"),
    ("short: A girl smiles.", "short: A girl smiles.\nShe waves.", Rule.SECTION, "She waves."),
]


def test_a_valid_text_has_no_fault():
    assert check_text(WHOLE, V2) is None
    parsed = parse_text(WHOLE, V2)
    assert parsed.tags == ["1girl", "long hair", "^_^", "smile"]
    assert parsed.long == "A girl with long hair smiles. The sign reads: hello.\nBehind her is a wall."
    assert parsed.predicted == {"quality": ["masterpiece", "newest"], "meta": ["highres"]}
    assert check_text(DAN, DANTAGGEN) is None


def test_an_aspect_ratio_may_be_of_any_size():
    for ratio in ("0.0", "20000.0", "2147483647.0"):
        assert check_text(WHOLE.replace("1.8", ratio), V2) is None


@pytest.mark.parametrize(("old", "new", "rule", "at"), MUTATIONS)
def test_a_fault_is_reported_with_rule_and_position(old, new, rule, at):
    assert WHOLE.count(old) >= 1
    text = WHOLE.replace(old, new, 1)
    fault = check_text(text, V2)
    assert fault is not None
    assert fault.rule == rule
    expected = len(text) if at is None else text.index(at)
    assert fault.offset == expected
    before = text[:expected]
    assert (fault.line, fault.column) == (before.count("\n") + 1, len(before) - before.rfind("\n"))
    assert str(fault).startswith(f"line {fault.line}, column {fault.column}: {rule}: ")


@pytest.mark.parametrize(
    ("old", "new", "rule", "at"),
    [
        ("artist: <|empty|>\n", "", Rule.MISSING_KEY, "target"),
        ("quality: <|empty|>", "meta: highres", Rule.MISSING_KEY, "target"),
        ("<|input_end|>", ", ", Rule.INPUT_END, None),
        ("<|very_short|>", "<|very_short|> <|gen_meta|>", Rule.TARGET, "<|gen_meta|>"),
        ("<|very_short|>", "<|long|>", Rule.LENGTH, "<|long|>"),
        ("long hair", "smile", Rule.DOUBLE_TAG, "smile, wall"),
        ("<|input_end|>", "<|input_end|>, ", Rule.ITEM, ", long hair"),
        ("wall", "wall\nlong: A wall.", Rule.SECTION, "long: A wall."),
    ],
)
def test_a_dantaggen_fault_is_reported_with_rule_and_position(old, new, rule, at):
    text = DAN.replace(old, new, 1)
    fault = check_text(text, DANTAGGEN)
    assert fault is not None
    assert (fault.rule, fault.offset) == (rule, len(text) if at is None else text.index(at))


def test_the_limit_of_tags_holds_for_tasks_that_begin_with_tags():
    tags = ", ".join(f"tag {number}" for number in range(73))
    assert check_text(f"target: <|very_long|>\ntag: {tags}", V2).rule is Rule.TOO_MANY_TAGS
    assert check_text(f"target: <|very_long|> <|long_to_tag|>\nlong: A wall.\ntag: {tags}", V2) is None


def test_only_version_1_allows_long_without_a_blank():
    text = "target: <|short_to_long|>\nshort: A wall.\nlong:A wall of bricks."
    assert check_text(text, V1) is None
    assert check_text(text, V2).rule is Rule.SECTION


ROW = {
    "user": "rating: safe\ntarget: <|very_short|>\ntag: 1girl, smile",
    "output": ", long hair",
    "loss": "output",
    "task": "tag",
    "length": "very_short",
    "gen_meta": False,
    "tags_given": 2,
}


def test_a_row_must_end_its_user_half_between_tags_and_agree_with_its_text():
    assert check_row(ROW, V2) is None
    text = ROW["user"] + ROW["output"]
    at = text.index("rl, smile")
    cut = check_row({**ROW, "user": text[:at], "output": text[at:]}, V2)
    assert (cut.rule, cut.offset) == (Rule.SPLIT, at)
    assert check_row({**ROW, "user": text, "output": ""}, V2).rule is Rule.SPLIT
    for name, value in {
        "task": "tag_to_long",
        "length": "short",
        "gen_meta": True,
        "tags_given": 1,
        "loss": "x",
    }.items():
        fault = check_row({**ROW, name: value}, V2)
        assert fault.rule is Rule.FIELD
        assert name in fault.message


@pytest.mark.parametrize("preset", Preset)
def test_every_rendered_row_passes(preset):
    config = RenderConfig(preset=preset)
    records = draw_records(1400, seed=11)
    rows = render_table(records, config, epoch=1, seed=2, splits=["train"] * len(records)).rows.to_pylist()
    assert [fault for row in rows if (fault := check_row(row, profile_of(config)))] == []
    assert len(rows) > 900
