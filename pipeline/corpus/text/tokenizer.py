"""The tokenizer of a corpus, identified by the digest of its file. The corpus's only import of tokenizers.

The path of a tokenizer says nothing about its content: a recipe holds the digest, and each process that opens the
file again checks it.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from pipeline.errors import ConfigError

BOS_NAMES = ("<s>", "<|bos|>", "<|begin_of_text|>", "<bos>", "[BOS]", "<|startoftext|>")
EOS_NAMES = ("</s>", "<|eos|>", "<|end_of_text|>", "<eos>", "[EOS]", "<|endoftext|>")


class TextTokenizer:
    """One tokenizer file; built once per process."""

    def __init__(self, path: str, *, bos: str | None = None, eos: str | None = None, digest: str | None = None) -> None:
        """Load a tokenizer.

        Args:
            path: a `tokenizer.json` of Hugging Face's tokenizers library, or a folder with one.
            bos: the token that begins a text; by default the first of `BOS_NAMES` in the vocabulary.
            eos: the token that ends a text; by default the first of `EOS_NAMES` in the vocabulary.
            digest: what the file must have, if the job has opened it before.

        Raises:
            ConfigError: the file does not exist, is not a tokenizer, has another digest, or has no such token.
        """
        given = Path(path).expanduser()
        file = given / "tokenizer.json" if given.is_dir() else given
        try:
            data = file.read_bytes()
        except OSError as err:
            raise ConfigError(f"{file}: cannot be read ({err.strerror}); give the path of a tokenizer.json") from err
        self.digest = hashlib.sha256(data).hexdigest()[:16]
        """Of the content of the file: 16 hex digits of its SHA-256."""
        if digest is not None and digest != self.digest:
            raise ConfigError(
                f"{file}: has the digest {self.digest} on this machine, and {digest} where the job was started; give "
                "all machines of the cluster the same file"
            )
        try:
            self._tokenizer = Tokenizer.from_buffer(data)
        except ValueError as err:
            raise ConfigError(f"{file}: not a tokenizer file ({err}); give a tokenizer.json") from err
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.bos_id = self._id(file, "BOS", (bos,) if bos else BOS_NAMES)
        self.eos_id = self._id(file, "EOS", (eos,) if eos else EOS_NAMES)

    def _id(self, file: Path, what: str, names: Sequence[str]) -> int:
        for name in names:
            token = self._tokenizer.token_to_id(name)
            if token is not None:
                return token
        raise ConfigError(
            f"{file}: has no {what} token; looked for {', '.join(names)}; set tokenizer.{what.lower()} to its name"
        )

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, without BOS and EOS."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
