"""Whether the files of the job's model are complete, and whether they are of the model family that the job means."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

from pipeline.doctor.check import Context, Finding, failed, job_of, ok
from pipeline.errors import ConfigError
from pipeline.models import family_of, generation_of
from pipeline.recipe import find_weights

INDEX = "model.safetensors.index.json"
_HEADER_BYTES = 8
_COPY = "copy the folder of the model again, on this node"
_DOWNLOAD = (
    "check the name and the revision; a gated model needs HF_TOKEN with access to it, and the node needs the network"
)


def files(context: Context) -> Finding:
    """Whether the weights of a local folder are whole. A download of the hub's client is whole or fails."""
    model = job_of(context).model
    weights = find_weights(model)
    if weights.stated is None:
        return ok(f"{model.id} comes from the hub")
    folder = Path(weights.path)
    expected = _expected(folder)
    if not expected:
        return failed(f"{folder}: has no *.safetensors", _COPY)
    for fault in _faults(expected):
        return failed(fault, _COPY)
    size = sum(file.stat().st_size for file in expected)
    return ok(f"{len(expected)} files of weights, {size / 2**30:.2f} GiB")


def _expected(folder: Path) -> list[Path]:
    if not (folder / INDEX).is_file():
        return sorted(folder.glob("*.safetensors"))
    listing = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    return [folder / name for name in sorted(set(listing["weight_map"].values()))]


def _faults(expected: list[Path]) -> Iterator[str]:
    for file in expected:
        if not file.is_file():
            yield f"{file}: is missing, and {INDEX} names it"
            continue
        size, needed = file.stat().st_size, _needed_bytes(file)
        if needed is None:
            yield f"{file}: is not a safetensors file"
        elif size != needed:
            yield f"{file}: has {size:,} bytes, and its header says {needed:,}"


def _needed_bytes(file: Path) -> int | None:
    """The size that the header of a safetensors file gives; None if it has no such header."""
    with file.open("rb") as opened:
        head = opened.read(_HEADER_BYTES)
        if len(head) < _HEADER_BYTES:
            return None
        (length,) = struct.unpack("<Q", head)
        if length > file.stat().st_size:
            return None
        try:
            header = json.loads(opened.read(length))
        except ValueError:
            return None
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return _HEADER_BYTES + length + max(ends, default=0)


def layout(context: Context) -> Finding:
    """Whether tokenizer, config and image processor are those of the model family, and a prompt fits."""
    from pipeline.engines.hub_model import PromptTokens, image_processor  # noqa: PLC0415 - transformers takes seconds

    job = job_of(context)
    weights, family, generation = find_weights(job.model), family_of(job.model), generation_of(job.model)
    try:
        tokens = PromptTokens(family, weights.path, job.model.revision)
        if family.prepare_images is not None:
            image_processor(weights.path, job.model.revision)
    except (OSError, ValueError) as err:  # of transformers: a missing file, no network, a gated model, a bad config
        remedy = _DOWNLOAD if weights.stated is None else _COPY
        return failed(f"{job.model.id} cannot be loaded: {str(err).splitlines()[0]}", remedy)
    tokens.check_room(job.sampling.max_tokens or generation.max_tokens, job.engine.max_model_len)
    stated = weights.stated
    if stated is not None and tokens.geometry != family.geometry_of(stated):
        raise ConfigError(f"{weights.path}: {tokens.geometry} by its config, and {family.geometry_of(stated)} by ours")
    if family.prepare_images is None:
        return ok(f"{family.name}: the chat template is that of the tokenizer; no images")
    width, height = tokens.geometry.size_of(1000, 1000)
    return ok(
        f"{family.name}, {generation.name}: {tokens.layout.image_tokens(width, height)} tokens for an image of "
        f"{width} x {height} px"
    )
