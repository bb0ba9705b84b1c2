"""The public parser reads back what was rendered: tags, captions and metadata."""

import pytest

from pipeline.config import Preset, RenderConfig
from pipeline.corpus.text.render_texts import render_table
from pipeline.corpus.text.text_grammar import parse_text, profile_of
from tests.corpus.public_parser import parse_public, representable
from tests.corpus.records import draw_records

pytest.importorskip("kgen", reason="tipo-kgen is not installed: pip install --no-deps tipo-kgen==0.3.1")


@pytest.mark.parametrize("preset", [Preset.TIPO_V1, Preset.TIPO_V2, Preset.TIPO_V2_1])
def test_the_public_parser_recovers_tags_and_captions(preset):
    config = RenderConfig(preset=preset)
    records = draw_records(700, seed=5)
    rows = render_table(records, config, epoch=0, seed=9, splits=["train"] * len(records)).rows.to_pylist()
    profile = profile_of(config)
    tasks = set()
    for row in rows:
        text = row["user"] + row["output"]
        assert representable(text)
        ours = parse_text(text, profile)
        theirs = parse_public(text, len(ours.predicted))
        assert theirs.get("tag", []) == ours.tags
        assert theirs.get("extended") == ours.short
        assert theirs.get("generated") == ours.long
        if "tag" not in ours.task.sections:  # a tag section mixes its own finds with the lines'
            assert {key: theirs.get(key) for key in ours.meta} == ours.meta
        tasks.add(row["task"])
    assert len(tasks) == 8


def test_the_public_parser_s_loss_of_the_last_letter_is_worked_around():
    assert parse_public("target: <|short|>\ntag: boots, thighhighs", 0)["tag"] == ["boots", "thighhighs"]
