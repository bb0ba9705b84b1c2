"""Draws depend only on seed, epoch and id, have the shares of the preset, and avoid the known defects."""

import itertools
from collections import Counter

import pyarrow as pa
import pytest
from scipy.stats import chi2_contingency

from pipeline.config import Persons, Preset, RenderConfig
from pipeline.corpus.records.corpus_record import Record, records_of
from pipeline.corpus.text.draws import draw_seed
from pipeline.corpus.text.render_texts import render_table
from pipeline.corpus.text.text_plan import TextPlan, TextPlanner
from pipeline.corpus.text.write_text import write_text
from schemas.corpus_row import CORPUS_ROW, Drop, LengthClass, Loss, Task
from schemas.record import RECORD
from tests.corpus.expected_shares import accept, accept_share, expected_gen_meta, expected_tasks, style_name
from tests.corpus.records import KINDS, draw_records

GENERAL = ["long hair", "blue eyes", "smile", "wall", "sky", "cloud", "^_^", "hat", "tree", "day", "grass", "lake"]
SHORT = "A girl smiles by a lake."
LONG = "A girl with long hair smiles by a lake. A hat shades her eyes.\nTrees stand behind her."


def rendered(records, preset=Preset.TIPO_V2_1, epoch=0, seed=7, **settings):
    config = RenderConfig(preset=preset, **settings)
    return render_table(records, config, epoch=epoch, seed=seed, splits=["train"] * len(records))


def record(**fields):
    base = {"id": "a:1", "source": "a", "general": GENERAL, "special": ["1girl"], "short": SHORT, "long": LONG}
    lists = dict.fromkeys(("character", "copyright", "artist", "meta", "rating", "quality"), ())
    return Record(**{**lists, "width": None, "height": None, **base, **fields})


def plan(**fields):
    base = {
        "task": Task.TAG,
        "length": LengthClass.VERY_SHORT,
        "tags": ["1girl", *GENERAL[:4]],
        "tags_given": 0,
        "given": [],
        "predicted": [],
        "short": SHORT,
        "long": LONG,
        "loss": Loss.ALL,
    }
    return TextPlan(**{**base, **fields})


META = ["rating: safe", "aspect ratio: 0.7"]
TAGS = "1girl, long hair, blue eyes, smile, wall"


@pytest.mark.parametrize(
    ("decided", "user", "output"),
    [
        (
            plan(given=META, tags_given=3),
            "rating: safe\naspect ratio: 0.7\ntarget: <|very_short|>\ntag: 1girl, long hair, blue eyes",
            ", smile, wall",
        ),
        (
            plan(task=Task.TAG_TO_LONG, tags_given=1),
            "target: <|very_short|> <|tag_to_long|>\ntag: 1girl",
            f", long hair, blue eyes, smile, wall\nlong: {LONG}",
        ),
        (
            plan(task=Task.LONG_TO_TAG),
            f"target: <|very_short|> <|long_to_tag|>\nlong: {LONG}\n",
            f"tag: {TAGS}",
        ),
        (
            plan(task=Task.SHORT_TO_TAG, given=["copyrights: vocaloid"]),
            f"copyrights: vocaloid\ntarget: <|very_short|> <|short_to_tag|>\nshort: {SHORT}\n",
            f"tag: {TAGS}",
        ),
        (
            plan(task=Task.TAG_TO_SHORT_TO_LONG, tags_given=4),
            "target: <|very_short|> <|tag_to_short_to_long|>\ntag: 1girl, long hair, blue eyes, smile",
            f", wall\nshort: {SHORT}\nlong: {LONG}",
        ),
        (
            plan(task=Task.SHORT_TO_TAG_TO_LONG),
            f"target: <|very_short|> <|short_to_tag_to_long|>\nshort: {SHORT}\n",
            f"tag: {TAGS}\nlong: {LONG}",
        ),
        (
            plan(task=Task.SHORT_TO_LONG_TO_TAG),
            f"target: <|very_short|> <|short_to_long_to_tag|>\nshort: {SHORT}\n",
            f"long: {LONG}\ntag: {TAGS}",
        ),
        (
            plan(task=Task.TAG_TO_LONG, tags_given=2, given=META, predicted=["quality: good, mid", "meta: x"]),
            "rating: safe\naspect ratio: 0.7\ntarget: <|very_short|> <|tag_to_long|> <|gen_meta|>\n"
            "tag: 1girl, long hair",
            f", blue eyes, smile, wall\nlong: {LONG}\nquality: good, mid\nmeta: x",
        ),
        (plan(), "target: <|very_short|>\n", f"tag: {TAGS}"),
        (
            plan(task=Task.SHORT_TO_LONG, length=None),
            f"target: <|short_to_long|>\nshort: {SHORT}\n",
            f"long: {LONG}",
        ),
        (
            plan(task=Task.SHORT_TO_LONG, length=None, bare_long=True),
            f"target: <|short_to_long|>\nshort: {SHORT}\nlong:",
            LONG,
        ),
        (
            plan(given=["rating: safe", "artist: <|empty|>"], tags_given=2, input_end=True),
            "rating: safe\nartist: <|empty|>\ntarget: <|very_short|>\ngeneral: 1girl, long hair<|input_end|>",
            "blue eyes, smile, wall",
        ),
    ],
)
def test_each_format_is_written_exactly(decided, user, output):
    assert write_text(decided) == (user, output)


@pytest.mark.parametrize("preset", Preset)
def test_draws_depend_only_on_seed_epoch_and_id(preset):
    records = draw_records(140)
    whole = rendered(records, preset).rows
    assert whole.schema.equals(CORPUS_ROW, check_metadata=True)
    pieces = [rendered(records.slice(at, 9), preset).rows for at in reversed(range(0, 140, 9))]
    assert pa.concat_tables(reversed(pieces)).equals(whole)
    shuffled = records.take(pa.array(list(reversed(range(140)))))
    assert rendered(shuffled, preset).rows.take(pa.array(list(reversed(range(whole.num_rows))))).equals(whole)
    assert not rendered(records, preset, epoch=1).rows["output"].equals(whole["output"])
    assert not rendered(records, preset, seed=8).rows["output"].equals(whole["output"])


def test_a_draw_is_the_same_on_every_machine_and_python():
    seed = draw_seed(7, 0, "a:1")
    assert seed == 5630138571811832579
    plan = TextPlanner(RenderConfig())(record(), seed)
    assert (plan.task, plan.tags[:5]) == (Task.SHORT_TO_TAG_TO_LONG, ["1girl", "hat", "day", "lake", "wall"])


@pytest.mark.parametrize("preset", Preset)
def test_tasks_gen_meta_and_loss_have_the_shares_of_the_preset(preset):
    config = RenderConfig(preset=preset)
    for kind, table in (("danbooru", "all"), ("long", "tags_long"), ("short", "tags_short"), ("gbc", "captions")):
        style = "gbc" if preset is Preset.TIPO_V1 and kind == "gbc" else "default"
        rows = rendered(draw_records(1000, kinds=(kind,)), preset).rows
        tasks = Counter(rows["task"].to_pylist())
        expected = expected_tasks(config, style, table)
        assert set(tasks) == set(expected)
        assert accept(tasks, expected).p > 1e-4
        if kind == "danbooru":
            assert accept_share(sum(rows["gen_meta"].to_pylist()), len(rows), expected_gen_meta(config, style)).p > 1e-4
            assert (
                accept_share(rows["loss"].to_pylist().count("all"), len(rows), config.loss_on_all_probability).p > 1e-4
            )


def test_a_wrong_share_has_a_small_p():
    assert accept({"tag": 180, "tag_to_long": 120}, {"tag": 0.5, "tag_to_long": 0.5}).p < 1e-3
    assert accept({"tag": 150, "long_to_tag": 1}, {"tag": 1.0}).p == 0
    assert accept({"tag": 148, "tag_to_long": 152}, {"tag": 0.5, "tag_to_long": 0.5}).p > 0.5


def drawn(item, config, num=400):
    planner = TextPlanner(config)
    return [planner(item, seed) for seed in range(num)]


def test_a_record_without_tags_draws_no_task_with_tags():
    config = RenderConfig()
    bare = {"general": [], "special": []}
    assert {plan.task for plan in drawn(record(**bare), config)} == {Task.SHORT_TO_LONG}
    assert set(drawn(record(**bare, long=None), config, 3)) == {Drop.ONE_CAPTION}
    assert set(drawn(record(**bare, long=None, short=None), config, 3)) == {Drop.NOTHING}
    assert set(drawn(record(**bare), RenderConfig(preset="dantaggen"), 3)) == {Drop.NO_TAGS}
    nothing = {"styles": {"default": {"tasks": {"captions": {"short_to_long": 0}}}}}
    assert set(drawn(record(**bare), RenderConfig(**nothing), 3)) == {Drop.NO_WEIGHT}


@pytest.mark.parametrize("general", [[], GENERAL[:1], GENERAL[:2], GENERAL])
def test_something_is_always_left_to_predict(general):
    lines = {"rating": ["safe"], "width": 100, "height": 50}
    for plan in drawn(record(general=general, **lines), RenderConfig()):
        user, output = write_text(plan)
        assert output.removeprefix(", ").strip()
        assert "tag: ," not in user + output
        assert not output.endswith((", ", "\n"))
        assert not user.startswith("\n")
        assert plan.tags_given < len(plan.tags)


def test_no_aspect_ratio_is_written_without_width_or_height():
    assert all("aspect" not in write_text(plan)[0] for plan in drawn(record(width=100), RenderConfig(), 50))
    assert any(
        "aspect ratio: 0.3\n" in write_text(plan)[0]
        for plan in drawn(record(width=100, height=300), RenderConfig(), 50)
    )


def test_tags_that_count_persons_are_first_or_shuffled():
    first = [plan.tags[0] for plan in drawn(record(), RenderConfig(preset="tipo-v2.1"), 100)]
    mixed = [plan.tags.index("1girl") for plan in drawn(record(), RenderConfig(preset="tipo-v2"), 100)]
    assert set(first) == {"1girl"}
    assert len(set(mixed)) > 8
    style = RenderConfig(preset="tipo-v2", styles={"a": {"persons": "first"}}).styles["a"]
    assert style.persons is Persons.FIRST


@pytest.mark.parametrize(
    ("num", "length", "written"),
    [(17, "very_short", 17), (18, "short", 18), (36, "long", 36), (48, "very_long", 48), (90, "very_long", 72)],
)
def test_length_classes_depend_on_general_tags_and_limit_leading_tags(num, length, written):
    tags = [f"tag {number}" for number in range(num)]
    for plan in drawn(record(general=tags, special=["1girl", "1boy"]), RenderConfig(), 60):
        if plan.length is not None:
            assert plan.length == length
            opens = plan.task.sections[0] == "tag"
            assert len(plan.tags) == 2 + (written if opens else num)


def test_probabilities_follow_the_config():
    item = record(rating=["safe"], artist=["x"], meta=["y"])
    sure = {"drop_all_probability": 0, "drop_some_probability": 0, "gen_meta": 1}
    assert all(
        len(p.given) + len(p.predicted) == 3 and p.predicted and p.given for p in drawn(item, RenderConfig(**sure))
    )
    lone = drawn(record(rating=["safe"]), RenderConfig(**sure), 20)
    assert all((p.given, p.predicted) == ([], ["rating: safe"]) for p in lone)
    bare = drawn(item, RenderConfig(drop_all_probability=1))
    assert all(not p.given and not p.predicted and p.tags_given <= 1 for p in bare)
    some = drawn(item, RenderConfig(drop_all_probability=0, drop_some_probability=1, keep_line_probability=0.5))
    assert {len(p.given) for p in some} == {0, 1, 2, 3}
    only = {"styles": {"default": {"tasks": {"all": dict.fromkeys(Task, 0) | {"long_to_tag": 1}}}}}
    with pytest.raises(ValueError, match="Input should be"):
        RenderConfig(styles={"default": {"tasks": {"all": {"tag_to_short": 1}}}})
    assert {p.task for p in drawn(item, RenderConfig(**only))} == {Task.LONG_TO_TAG}


def test_records_of_reads_a_table():
    table = draw_records(70)
    for record_, row in zip(records_of(table), table.to_pylist(), strict=True):
        assert {name: getattr(record_, name) for name in Record.__slots__} == {
            name: row[name] for name in Record.__slots__
        }
    assert set(Record.__slots__) <= set(RECORD.names)
    assert set(KINDS) == set(table["source"].to_pylist())


def test_draws_of_different_decisions_are_independent():
    item = record(rating=["safe"], artist=["x"], meta=["y"], character=["z"])
    plans = drawn(item, RenderConfig(drop_all_probability=0.3), 3000)
    whole = [p for p in plans if len(p.given) + len(p.predicted) == 4]
    figures = {
        "task": lambda p: p.task, "loss": lambda p: p.loss, "gen_meta": lambda p: bool(p.predicted),
        "first tag": lambda p: p.tags[1], "first line": lambda p: (p.given + p.predicted)[0],
    }  # fmt: skip
    for a, b in itertools.combinations(figures, 2):
        assert independent(Counter((figures[a](p), figures[b](p)) for p in whole)), (a, b)
    for name in ("task", "loss", "first tag"):
        assert independent(Counter((figures[name](p), bool(p.given or p.predicted)) for p in plans)), name
    # The order of the lines does not depend on which lines are kept.
    some = drawn(item, RenderConfig(drop_all_probability=0, drop_some_probability=1, keep_line_probability=0.5), 3000)
    first = Counter(p.given[0] for p in some if p.given)
    assert accept(first, dict.fromkeys(first, 1 / 4)).p > 1e-4


def independent(counts):
    """Return whether the two values of the pairs are independent."""
    rows, columns = sorted({a for a, _ in counts}), sorted({b for _, b in counts})
    return chi2_contingency([[counts[a, b] for b in columns] for a in rows]).pvalue > 1e-4


def test_the_number_of_given_tags_is_not_affected_by_rounding():
    tags = [f"tag {number}" for number in range(50)]
    # 0.58 x 50 is 28.999999999999996 as a float.
    given = {
        p.tags_given for p in drawn(record(general=tags), RenderConfig(given_share=0.58, drop_all_probability=0), 3000)
    }
    assert max(given) == 1 + 30


def test_the_style_with_the_longest_matching_name_is_used():
    alone = {name: {"tasks": {"all": dict.fromkeys(Task, 0) | {name: 1}}} for name in ("tag", "long_to_tag")}
    config = RenderConfig(styles={"co": alone["tag"], "coyo": alone["long_to_tag"]})
    assert {p.task for p in drawn(record(source="coyo-hd"), config, 20)} == {Task.LONG_TO_TAG}
    assert {p.task for p in drawn(record(source="coco"), config, 20)} == {Task.TAG}
    assert [style_name(config, source) for source in ("coyo-hd", "coco", "x")] == ["coyo", "co", "default"]


def test_the_expected_share_of_gen_meta_is_that_of_the_public_renderer():
    assert expected_gen_meta(RenderConfig(), "default") == pytest.approx(0.189)
    assert expected_gen_meta(RenderConfig(preset="tipo-v1"), "coyo") == 0


def test_rare_cells_are_merged():
    few = accept({"a": 100, "b": 3, "c": 3}, {"a": 100 / 106, "b": 3 / 106, "c": 3 / 106})
    assert (few.degrees, few.statistic) == (1, pytest.approx(0))
    assert accept({"a": 106}, {"a": 100 / 106, "b": 3 / 106, "c": 3 / 106}).statistic == pytest.approx(6.36)


@pytest.mark.parametrize(("share_of", "most"), [(None, 49), (32, 20)])
def test_dantaggen_gives_a_share_of_all_tags_or_of_as_many_as_its_trainer(share_of, most):
    planner = TextPlanner(RenderConfig(preset=Preset.DANTAGGEN, given_share_of=share_of))
    tags = [f"tag {number}" for number in range(80)]
    given = {planner(record(general=tags, special=[]), seed).tags_given for seed in range(2000)}
    assert max(given) == most
    assert min(given) == 0


def test_the_title_is_the_short_caption_as_often_as_the_style_says():
    style = {"title_as_short": 0.5, "tasks": {"captions": {"short_to_long": 1}}}
    planner = TextPlanner(RenderConfig(preset=Preset.TIPO_V1, styles={"gbc": style}))
    image = record(source="gbc", general=[], special=[], title="The image shows a dog\n**on** a mat")
    drawn = Counter(planner(image, seed).short for seed in range(2000))
    assert set(drawn) == {SHORT, "A dog on a mat"}
    assert accept_share(drawn[SHORT], 2000, 0.5).p > 1e-4
    for title in (None, "<|long|>"):
        unusable = record(source="gbc", general=[], special=[], title=title)
        assert {planner(unusable, seed).short for seed in range(20)} == {SHORT}
    default = TextPlanner(RenderConfig(preset=Preset.TIPO_V1))
    assert {default(image, seed).short for seed in range(50)} == {SHORT}
