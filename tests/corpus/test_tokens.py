"""Token counts are those of the trainers; bins contain whole texts."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from pipeline.config import RenderConfig
from pipeline.corpus.text.count_tokens import count_tokens
from pipeline.corpus.text.pack_texts import PACKING, pack
from pipeline.corpus.text.render_texts import render_table
from pipeline.corpus.text.tokenizer import TextTokenizer
from pipeline.errors import ConfigError
from schemas.corpus_row import CORPUS_ROW
from tests.corpus.records import draw_records
from tests.corpus.tiny_tokenizer import SPECIAL, train_tokenizer


@pytest.fixture(scope="module")
def rows():
    records = draw_records(140)
    return render_table(records, RenderConfig(), epoch=0, seed=1, splits=["train"] * len(records)).rows


@pytest.fixture(scope="module")
def tokenizer_file(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer([a + b for a, b in zip(rows["user"].to_pylist(), rows["output"].to_pylist(), strict=True)], path)
    return str(path)


def encoded(tokenizer, user, output, *, all_trained):
    """The token ids of a text as the trainers make them, and which of them are trained on."""
    given, rest = (tokenizer.encode(text, add_special_tokens=False).ids for text in (user, output))
    ids = [tokenizer.token_to_id("<s>"), *given, *rest, tokenizer.token_to_id("</s>")]
    return ids, [False, *[all_trained] * len(given), *[True] * (len(rest) + 1)]


def test_token_counts_match_ids_and_mask(rows, tokenizer_file):
    own, plain = TextTokenizer(tokenizer_file), Tokenizer.from_file(tokenizer_file)
    counted = count_tokens(rows, own)
    assert counted.schema.equals(CORPUS_ROW, check_metadata=True)
    losses = set()
    for row in counted.to_pylist():
        ids, trained = encoded(plain, row["user"], row["output"], all_trained=row["loss"] == "all")
        assert (len(ids), sum(trained)) == (row["n_tokens"], row["n_trained"])
        assert ids.count(own.bos_id) == ids.count(own.eos_id) == 1
        learnt = [token for token, bears in zip(ids, trained, strict=True) if bears]
        expected = row["user"] + row["output"] if row["loss"] == "all" else row["output"]
        assert plain.decode(learnt[:-1], skip_special_tokens=False) == expected
        losses.add(row["loss"])
    assert losses == {"all", "output"}


def test_special_tokens_are_single_tokens(tokenizer_file):
    vocabulary = Tokenizer.from_file(tokenizer_file)
    ids, _ = encoded(vocabulary, "target: <|long|> <|tag_to_long|>", "", all_trained=True)
    assert sum(vocabulary.id_to_token(token) in SPECIAL for token in ids) == 4


def test_a_file_that_is_not_a_tokenizer_is_refused(tmp_path, tokenizer_file):
    path = tmp_path / "x.json"
    path.write_text("{}")
    with pytest.raises(ConfigError, match=r"x\.json: not a tokenizer file .*give a tokenizer\.json"):
        TextTokenizer(str(path))
    with pytest.raises(ConfigError, match=r"has no BOS token; looked for <nope>; set tokenizer\.bos to its name"):
        TextTokenizer(tokenizer_file, bos="<nope>")
    with pytest.raises(ConfigError, match=r"none\.json: cannot be read .*; give the path of a tokenizer\.json"):
        TextTokenizer(str(tmp_path / "none.json"))


def test_a_tokenizer_with_another_digest_than_on_the_driver_is_refused(tokenizer_file):
    digest = TextTokenizer(tokenizer_file).digest
    assert TextTokenizer(tokenizer_file, digest=digest).digest == digest
    with pytest.raises(ConfigError, match=rf"has the digest {digest} on this machine, and 0123 where the job was"):
        TextTokenizer(tokenizer_file, digest="0123")


@given(st.lists(st.integers(1, 120), max_size=80), st.integers(50, 100))
def test_every_text_that_fits_is_in_exactly_one_bin(lengths, context):
    plan = pack(lengths, context)
    assert plan.schema.equals(PACKING)
    assert sorted(plan["row"].to_pylist()) == [row for row, size in enumerate(lengths) if size <= context]
    ends: dict[int, int] = {}
    for row in plan.to_pylist():
        assert row["n_tokens"] == lengths[row["row"]]
        assert row["start"] == ends.get(row["bin"], 0)
        ends[row["bin"]] = row["start"] + row["n_tokens"]
        assert ends[row["bin"]] <= context
    assert sorted(ends) == list(range(len(ends)))
    # First-fit: at most one bin is half empty.
    assert sum(end * 2 <= context for end in ends.values()) <= 1


def test_packing_leaves_little_padding():
    lengths = [50 + (number * 7919) % 550 for number in range(5000)]
    plan = pack(lengths, 2048)
    bins = max(plan["bin"].to_pylist()) + 1
    assert sum(lengths) / (bins * 2048) > 0.99
    with pytest.raises(ValueError, match="context=0; allowed: 1 or more"):
        pack([1], 0)
    assert pack([], 10).equals(pa.Table.from_pylist([], schema=PACKING))
