"""A form from outside the package: a text file a shard with its captions in capitals, and a file that counts them."""

from collections.abc import Iterator

from pipeline.export.form import File, Finished, Form, ShardCaptions


def files(captions: ShardCaptions) -> Iterator[File]:
    lines = [f"{item.key}: {item.text.upper()}\n" for item in captions.chosen]
    yield File(f"{captions.shard.path}.{captions.config.suffix}", "".join(lines).encode())


def count(finished: Finished) -> None:
    finished.store.put("count", str(finished.num_images).encode())


FORM = Form(
    name="capitals",
    summary="texts in capitals",
    files=files,
    needs_images=False,
    honours=frozenset({"suffix"}),
    one_text=True,
    finish=count,
)
