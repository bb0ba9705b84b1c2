"""Counts the tokens of texts by halves.

The two halves are tokenised separately, so that the loss begins at a token boundary (as in v2's trainer). Each text
begins with one BOS and ends with one EOS. The loss covers all tokens except BOS, or those of the output and EOS: a
model predicts the next token, so the first token is never a label.
"""

import pyarrow as pa

from pipeline.corpus.text.tokenizer import TextTokenizer


def count_tokens(rows: pa.Table, tokenizer: TextTokenizer) -> pa.Table:
    """Return rows of `schemas.corpus_row` with `n_tokens` and `n_trained` filled."""
    user = map(len, tokenizer.encode(rows["user"].to_pylist()))
    output = map(len, tokenizer.encode(rows["output"].to_pylist()))
    losses = rows["loss"].to_pylist()
    pairs = list(zip(user, output, losses, strict=True))
    trained = [rest + 1 + (given if loss == "all" else 0) for given, rest, loss in pairs]
    counts = {"n_tokens": [given + rest + 2 for given, rest, _ in pairs], "n_trained": trained}
    for name, numbers in counts.items():
        rows = rows.set_column(
            rows.schema.get_field_index(name), rows.schema.field(name), pa.array(numbers, pa.int32())
        )
    return rows
