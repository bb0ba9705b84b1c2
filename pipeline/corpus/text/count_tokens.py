"""Counts the tokens of texts as the trainers do. The only module of the corpus that imports tokenizers.

The two halves are tokenised separately, so that the loss begins at a token boundary (as in v2's trainer). Each text
begins with one BOS and ends with one EOS. The loss covers all tokens except BOS, or those of the output and EOS: a
model predicts the next token, so the first token is never a label.
"""

from collections.abc import Sequence

import pyarrow as pa
from tokenizers import Tokenizer

from pipeline.errors import ConfigError

BOS_NAMES = ("<s>", "<|bos|>", "<|begin_of_text|>", "<bos>", "[BOS]", "<|startoftext|>")
EOS_NAMES = ("</s>", "<|eos|>", "<|end_of_text|>", "<eos>", "[EOS]", "<|endoftext|>")


class TokenCounter:
    """Counts with one tokenizer file; built once per process."""

    def __init__(self, path: str, *, bos: str | None = None, eos: str | None = None) -> None:
        """Load a tokenizer.

        Args:
            path: a `tokenizer.json` of Hugging Face's tokenizers library.
            bos: the token that begins a text; by default the first of `BOS_NAMES` in the vocabulary.
            eos: the token that ends a text; by default the first of `EOS_NAMES` in the vocabulary.

        Raises:
            ConfigError: the file is not a tokenizer, or has no such token.
        """
        try:
            self._tokenizer = Tokenizer.from_file(path)
        except Exception as err:
            raise ConfigError(f"{path}: not a tokenizer file ({err}); give a tokenizer.json") from err
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.bos_id = self._id(path, "BOS", (bos,) if bos else BOS_NAMES)
        self.eos_id = self._id(path, "EOS", (eos,) if eos else EOS_NAMES)

    def _id(self, path: str, what: str, names: Sequence[str]) -> int:
        for name in names:
            token = self._tokenizer.token_to_id(name)
            if token is not None:
                return token
        raise ConfigError(
            f"{path}: has no {what} token; looked for {', '.join(names)}; set tokenizer.{what.lower()} to its name"
        )

    def encode(self, user: str, output: str, *, all_trained: bool) -> tuple[list[int], list[bool]]:
        """Return the token ids of a text, and which of them are trained on."""
        given, rest = (encoding.ids for encoding in self._batch([user, output]))
        ids = [self.bos_id, *given, *rest, self.eos_id]
        trained = [False, *[all_trained] * len(given), *[True] * (len(rest) + 1)]
        return ids, trained

    def count(self, rows: pa.Table) -> pa.Table:
        """Return the rows with `n_tokens` and `n_trained` filled."""
        user = [len(encoding.ids) for encoding in self._batch(rows["user"].to_pylist())]
        output = [len(encoding.ids) for encoding in self._batch(rows["output"].to_pylist())]
        losses = rows["loss"].to_pylist()
        pairs = list(zip(user, output, losses, strict=True))
        trained = [rest + 1 + (given if loss == "all" else 0) for given, rest, loss in pairs]
        counts = {"n_tokens": [given + rest + 2 for given, rest, _ in pairs], "n_trained": trained}
        for name, numbers in counts.items():
            rows = rows.set_column(
                rows.schema.get_field_index(name), rows.schema.field(name), pa.array(numbers, pa.int32())
            )
        return rows

    def _batch(self, texts: list[str]):  # noqa: ANN202 - the library has no name for its encodings
        return self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
