"""Tokenised texts: `input_ids` and `labels` as the TIPO trainers compute them, one row a text or a packed sequence.

v1's trainer tokenises the whole text, and masks as many tokens as the given half alone has, BOS included. v2's trainer
tokenises each half. A text with loss on all of it has no given half for either trainer. Both cut a text at the
context. The first label of a text is always masked, so no text learns from the one before it in a sequence.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from pipeline.config.corpus_export_config import CorpusExportConfig, TokeniseBy
from pipeline.corpus.export.corpus_form import Convert, CorpusForm, Reads
from pipeline.corpus.text.pack_texts import pack
from pipeline.corpus.text.tokenizer import TextTokenizer
from schemas.corpus_row import Loss
from schemas.trainer_rows import PACKED_TOKENS, TOKENS

IGNORED = -100
"""PyTorch's `ignore_index` of the cross entropy."""


class TokenisedText(NamedTuple):
    """Token ids of a text and, at the same places, its labels."""

    ids: list[int]
    labels: list[int]


def convert(config: CorpusExportConfig, tokenizer: TextTokenizer | None) -> Convert:
    """Return the conversion of texts."""
    assert tokenizer is not None, "the form requires one"

    def apply(texts: pa.Table, counts: Counter[str]) -> dict[str, pa.Table]:
        rows = tokenise(texts, tokenizer, config, counts)
        return {"": _packed(rows, config.pack) if config.pack else _plain(rows)}

    return apply


def tokenise(
    texts: pa.Table, tokenizer: TextTokenizer, config: CorpusExportConfig, counts: Counter[str]
) -> list[TokenisedText]:
    """Return the tokens of the texts in their order; a text that is cut before its first label is left out."""
    losses, output = texts["loss"].to_pylist(), texts["output"].to_pylist()
    user = ["" if loss == Loss.ALL else half for loss, half in zip(losses, texts["user"].to_pylist(), strict=True)]
    rest = [
        given + half if loss == Loss.ALL else half
        for loss, given, half in zip(losses, texts["user"].to_pylist(), output, strict=True)
    ]
    given_ids = tokenizer.encode(user)
    if config.tokenise is TokeniseBy.HALVES:
        ids = [given + half for given, half in zip(given_ids, tokenizer.encode(rest), strict=True)]
    else:
        ids = tokenizer.encode([given + half for given, half in zip(user, rest, strict=True)])
    rows: list[TokenisedText] = []
    for given, tokens in zip(given_ids, ids, strict=True):
        whole = [tokenizer.bos_id, *tokens, tokenizer.eos_id]
        counts["texts_cut"] += len(whole) > config.context
        masked = min(1 + len(given), len(whole))
        row = TokenisedText(whole[: config.context], ([IGNORED] * masked + whole[masked:])[: config.context])
        if all(label == IGNORED for label in row.labels):
            counts["dropped_cut_before_the_first_label"] += 1
        else:
            rows.append(row)
    return rows


def _plain(rows: Sequence[TokenisedText]) -> pa.Table:
    columns = {"input_ids": [row.ids for row in rows], "labels": [row.labels for row in rows]}
    return pa.Table.from_pydict(columns, schema=TOKENS)


def _packed(rows: Sequence[TokenisedText], length: int) -> pa.Table:
    plan = pack([len(row.ids) for row in rows], length)
    texts = zip(plan["bin"].to_pylist(), (rows[row] for row in plan["row"].to_pylist()), strict=True)
    bins = [[text for _, text in group] for _, group in itertools.groupby(texts, key=lambda pair: pair[0])]
    columns = {
        "input_ids": [list(itertools.chain.from_iterable(text.ids for text in group)) for group in bins],
        "labels": [list(itertools.chain.from_iterable(text.labels for text in group)) for group in bins],
        "seq_lengths": [[len(text.ids) for text in group] for group in bins],
    }
    return pa.Table.from_pydict(columns, schema=PACKED_TOKENS)


FORM = CorpusForm(
    name="tokens",
    summary="texts as input_ids and labels",
    reads=Reads.TEXTS,
    convert=convert,
    by_unit=True,
    honours=frozenset({"tokenizer", "bos", "eos", "tokenise", "context", "pack"}),
    requires=frozenset({"tokenizer"}),
    hint="`labels` are not shifted: a causal language model of `transformers` takes the columns as they are. Rows are "
    "not padded. `seq_lengths`, if there, are the texts of a packed sequence, for an attention that keeps them apart.",
)
