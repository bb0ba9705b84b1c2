"""JoyCaption's exact shape on a GPU: images and tokens a second, and their share of the roofline.

`python -m tests.benchmarks.gpu [--minutes M] [--images N] [--caption-tokens T] [--rounds R] [--peaked]`. Weights are
random (a model that is not trained costs what a trained one costs), pictures are noise of photographs' coarseness at
384 x 384, prompts have the tokens of JoyCaption's (40 before the image, 729 for it, 31 after it), and every answer has
T tokens, since a random model does not stop. Random weights give flat logits, with which top-p keeps most of the
vocabulary; --peaked scales them so that it keeps a few tokens, as for a trained model. Measured is the project's own
engine, vLLM, image by image and with batches through the real captioning code (`pipeline.stages`); where vLLM is not
installed, a batch loop of `transformers`. The expected time is printed first, and by default the number of images is
chosen so that everything fits into M minutes. Each figure is written to a .jsonl file as soon as it is known, so that a
crash loses none before it. Without a CUDA device it says so and ends with exit code 2; --tiny runs the same code on a
CPU with the stand-in's dimensions, to see that it runs.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import io
import itertools
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL.PngImagePlugin import PngInfo

from tests.benchmarks.report import FOLDER, publish

SLOTS = (1, 2, 4)
WAYS = ("images", "batches")
BEFORE, AFTER = 40, 31
NO_CUDA = 2

START_S = 150
"""Of an engine on a GPU: imports, 17 GB of random weights, compilation, CUDA graphs. An estimate."""

WARM_UP_IMAGES = 64
ATTAINED = 0.6
"""Share of the roofline by which the expected time is computed. A guess, on the safe side."""

PEAKED_STD = 8.0
"""Standard deviation of peaked logits: with temperature 0.6 and top-p 0.9, a handful of 128,256 tokens remain."""

DUMMY_RMS = 1e-3 / 3**0.5
"""Of vLLM's dummy weights, norms included: uniform between -1e-3 and 1e-3."""


def write_model(folder: Path, *, tiny: bool, peaked: bool = False) -> Path:
    """Write a folder with JoyCaption's config and the stand-in's tokenizer; weights are made when it is loaded."""
    from pipeline.config import ModelConfig
    from pipeline.models import FAMILIES
    from pipeline.recipe import find_weights

    dims = FAMILIES["joycaption"].dims

    standin = Path(find_weights(ModelConfig(id="standin")).path)
    folder.mkdir(parents=True)
    for file in standin.iterdir():
        if file.suffix == ".json":
            shutil.copy(file, folder)
    config = json.loads((folder / "config.json").read_text())
    if peaked:
        hidden = config["text_config"]["hidden_size"] if tiny else dims.hidden
        config["text_config"]["logit_scale"] = PEAKED_STD / (hidden**0.5 * DUMMY_RMS**2)
        (folder / "config.json").write_text(json.dumps(config))
    if tiny:
        return folder
    config["image_seq_length"] = dims.vision.tokens
    config["text_config"] |= {
        "hidden_size": dims.hidden,
        "num_hidden_layers": dims.layers,
        "num_attention_heads": dims.heads,
        "num_key_value_heads": dims.kv_heads,
        "head_dim": dims.head_dim,
        "intermediate_size": dims.mlp,
        "vocab_size": dims.vocab,
        "max_position_embeddings": 131072,
        "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"},
    }
    config["vision_config"] |= {
        "hidden_size": dims.vision.hidden,
        "num_hidden_layers": dims.vision.layers + 1,
        "num_attention_heads": 16,
        "intermediate_size": dims.vision.mlp,
        "image_size": dims.vision.side_px,
    }
    (folder / "config.json").write_text(json.dumps(config))
    preparation = json.loads((folder / "preprocessor_config.json").read_text())
    preparation["size"] = {"height": dims.vision.side_px, "width": dims.vision.side_px}
    (folder / "preprocessor_config.json").write_text(json.dumps(preparation))
    return folder


DRAWN = 64
"""Pictures that are drawn, 50 ms each; the others are these, shifted."""


def photographs(num: int, side: int) -> list[Any]:
    """Noise on eight scales, so that neighbours are alike as in a photograph; no two are equal."""
    from PIL import Image

    rng, pictures = np.random.default_rng(0), list[Any]()
    for number in range(num):
        if number >= DRAWN:
            pictures.append(np.roll(pictures[number % DRAWN], number, axis=0))
            continue
        total = np.zeros((side, side, 3))
        for power in range(8):
            coarse = Image.fromarray(rng.integers(0, 256, (2**power, 2**power, 3), dtype=np.uint8))
            total += np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.float64) / 2 ** (power / 2)
        total = (total - total.min()) / (total.max() - total.min())
        pictures.append((255 * total).astype(np.uint8))
    return pictures


def engine_of(folder: Path, args: argparse.Namespace) -> Any:
    """Return the project's engine with random weights that never end an answer."""
    from pipeline.config import EngineConfig, SamplingConfig
    from pipeline.engines import EngineSpec
    from pipeline.engines.factory import _prepare_process
    from pipeline.models import FAMILIES

    spec = EngineSpec(
        config=EngineConfig(**({"max_model_len": 1024} if args.tiny else {})),
        sampling=SamplingConfig(stop_loops=False),
        max_tokens=args.caption_tokens,
        model_path=str(folder),
        revision=None,
        family="joycaption",
        geometry=FAMILIES["joycaption"].geometry_of(json.loads((folder / "config.json").read_text())),
    )
    _prepare_process(spec.config)
    from pipeline.engines import vllm as door

    usual_args, usual_sampling = door._engine_args, door._sampling

    def with_random_weights(spec: Any, size: Any, gpu: Any) -> Any:
        made = usual_args(spec, size, gpu)
        made.load_format = "dummy"
        return made

    def without_end(spec: Any, question: Any) -> Any:
        sampling = usual_sampling(spec, question)
        sampling.ignore_eos = True
        return sampling

    door._engine_args, door._sampling = with_random_weights, without_end
    return door.VllmEngine(spec)


def prompt_ids(engine: Any, slot: int) -> tuple[int, ...]:
    """Ids of the usual number around the image; slots differ in the words behind it."""
    before, after = engine._tokens.around_image(engine._tokens.encode("", ""))
    word = engine._tokens.encode("", "word")[len(before) + 2]
    image = engine._tokens.layout.image_token
    fill = [word + slot] * max(0, AFTER - len(after))
    return (*before[:-1], *[word] * max(0, BEFORE - len(before)), before[-1], image, after[0], *fill, *after[1:])


async def with_vllm(engine: Any, pictures: list[Any], slots: int, name: str) -> float:
    """Ask these slots of every picture; return seconds."""
    from pipeline.engines import EngineRequest

    prompts = {f"slot {slot}": prompt_ids(engine, slot) for slot in range(slots)}
    engine._tokens.encode = lambda _, prompt: prompts[prompt]
    window = asyncio.Semaphore(max(1, 2 * engine._size.max_num_seqs // slots))

    async def caption_picture(number: int) -> None:
        async with window:
            await asyncio.gather(
                *(
                    engine.answer(
                        EngineRequest(
                            id=f"{name}#{number}#{prompt}",
                            pixels=pictures[number % len(pictures)],
                            image_id=f"{name}#{number}",
                            system="",
                            prompt=prompt,
                            seed=number,
                        )
                    )
                    for prompt in prompts
                )
            )

    began = time.monotonic()
    await asyncio.gather(*(caption_picture(number) for number in range(len(pictures))))
    return time.monotonic() - began


async def with_captioner(engine: Any, args: argparse.Namespace, slots: int, tables: list[Any]) -> float:
    """Caption batches as a replica does, as many at once; return seconds."""
    from pipeline.engines.batch_plan import batches_to_feed
    from pipeline.ledger.footer import RunIdentity
    from pipeline.stages.captioning import Captioner, CaptionSpec

    job = _job(slots)
    run = RunIdentity(recipe="benchmark", slots=tuple(slot.slot for slot in job.captions), versions={})
    num_seqs = engine.stats().max_num_seqs
    captioner = Captioner(CaptionSpec(job=job, run=run), engine, num_seqs)
    ids: dict[str, tuple[int, ...]] = {}
    encode = engine._tokens.encode

    def encode_as_joycaption(system: str, prompt: str) -> tuple[int, ...]:
        if prompt not in ids:
            engine._tokens.encode = encode
            ids[prompt] = prompt_ids(engine, len(ids))
            engine._tokens.encode = encode_as_joycaption
        return ids[prompt]

    engine._tokens.encode = encode_as_joycaption
    window = asyncio.Semaphore(batches_to_feed(num_seqs, job.engine.batch_images, slots))

    async def caption_table(table: Any) -> int:
        async with window:
            return (await captioner.rows(table)).num_rows

    began = time.monotonic()
    num_rows = sum(await asyncio.gather(*map(caption_table, tables)))
    seconds = time.monotonic() - began
    engine._tokens.encode = encode
    expected = slots * sum(len(table["images"][0]) for table in tables)
    if num_rows != expected:
        raise RuntimeError(f"{num_rows} caption rows, expected {expected}")
    return seconds


def _job(slots: int) -> Any:
    from pipeline.config import parse_job

    return parse_job(
        {
            "source": "in",
            "output": "out",
            "model": "standin",
            "captions": [{"slot": f"slot{number}", "mode": "descriptive"} for number in range(slots)],
            # Random text breaks many rules; a repeated request would be work that is not counted.
            "quality": {"retry": {"attempts": 0}},
        }
    )


def batch_tables(name: str, pictures: list[Any], side: int, batch_images: int | None = None) -> list[Any]:
    """Batches as readers send them; the shard's name keeps the engine's caches from knowing an earlier pass."""
    from PIL import Image

    from pipeline.models import FixedSize
    from pipeline.readers import SourceRow
    from pipeline.stages.read_batches import ReadSpec, batches_of
    from schemas.shard import Shard

    job = _job(1)
    spec = ReadSpec(
        source=job.source,
        images=job.images,
        geometry=FixedSize(side, side),
        batch_images=batch_images or job.engine.batch_images,
    )

    def encoded(number: int) -> bytes:
        # Another text gives other bytes, and so another id of the image.
        file, text = io.BytesIO(), PngInfo()
        text.add_text("pass", name)
        Image.fromarray(pictures[number]).save(file, "PNG", compress_level=1, pnginfo=text)
        return file.getvalue()

    rows = [SourceRow(row=number, key=f"{number}", data=encoded(number)) for number in range(len(pictures))]
    return list(batches_of(spec, Shard(path=name, url="", size=1, etag=""), len(rows), rows))


async def measure_vllm(folder: Path, args: argparse.Namespace, rows: Rows) -> dict[str, Any]:
    engine, names = engine_of(folder, args), (f"pass{number}" for number in itertools.count())
    encode = engine._tokens.encode
    side = engine._spec.geometry.width_px
    pictures = photographs(args.images, side)
    device = engine._device.name if engine._device else "CPU"
    for k, way, number in itertools.product(args.slots, WAYS, range(args.rounds + 1)):
        engine._tokens.encode = encode
        # The first pass warms up.
        some, name = pictures[: args.images if number else WARM_UP_IMAGES], next(names)
        if way == "images":
            seconds = await with_vllm(engine, some, k, name)
        else:
            seconds = await with_captioner(engine, args, k, batch_tables(name, some, side))
        if number:
            rows.add({"way": way, **_row(engine, args, device, k, len(some) / seconds)})
    about = {"device": device, "max_num_seqs": engine._size.max_num_seqs, "engine": "vllm", "peaked": args.peaked}
    about["setup"] = engine.stats().setup
    engine.close()
    return about


def _row(engine: Any, args: argparse.Namespace, device: str, k: int, per_s: float) -> dict[str, Any]:
    dims = engine._tokens.dims
    prompt_tokens = BEFORE + dims.vision.tokens + AFTER
    return {
        "k": k,
        "images_per_s": per_s,
        "captions_per_s": k * per_s,
        "caption_tokens_per_s": k * per_s * args.caption_tokens,
        **shares(dims, device, k, prompt_tokens, args.caption_tokens, per_s),
    }


class Rows:
    """Figures, each printed and written when it is known."""

    def __init__(self, file: Path) -> None:
        self.all: list[dict[str, Any]] = []
        self._file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")

    def add(self, row: dict[str, Any]) -> None:
        self.all.append(row)
        print(row, flush=True)
        with self._file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")


def choose_images(args: argparse.Namespace, device: str) -> tuple[int, float]:
    """Return the images of a pass that fit into the minutes, and the seconds that all passes are expected to take."""
    from pipeline.engines.gpus import GPUS, gpu_of
    from pipeline.engines.roofline import roofline
    from pipeline.models import FAMILIES

    dims, name = FAMILIES["joycaption"].dims, gpu_of(device)
    card = GPUS[name] if name else min(GPUS.values(), key=lambda card: card.flops)
    prompt = BEFORE + dims.vision.tokens + AFTER
    # An image in every way, for each number of slots.
    each = len(WAYS) * sum(1 / (ATTAINED * roofline(dims, card, k, prompt, args.caption_tokens)) for k in args.slots)
    left = 60 * args.minutes - START_S - WARM_UP_IMAGES * each
    images = args.images or max(WARM_UP_IMAGES, min(1024, int(left / args.rounds / each)))
    return images, START_S + (WARM_UP_IMAGES + args.rounds * images) * each


def shares(shape: Any, device: str, k: int, prompt_tokens: int, caption_tokens: int, per_s: float) -> dict[str, float]:
    """Return the shares of the estimate and of the card's stated FLOPs; none for a card that nobody listed."""
    from pipeline.engines.gpus import GPUS, gpu_of
    from pipeline.engines.roofline import MAX_NUM_SEQS, Load, cost_of, seconds_per_image

    name = gpu_of(device)
    if name is None:
        return {}
    load = Load(slots=k, prompt_tokens=prompt_tokens, caption_tokens=caption_tokens)
    cost = cost_of(shape, load, MAX_NUM_SEQS)
    return {
        "roofline_images_per_s": 1 / seconds_per_image(shape, GPUS[name], load),
        "of_roofline": per_s * seconds_per_image(shape, GPUS[name], load),
        "of_stated_flops": per_s * (cost.prefill_flops + cost.decode_flops) / GPUS[name].flops,
    }


def measure_transformers(folder: Path, args: argparse.Namespace, rows: Rows) -> dict[str, Any]:
    """Batches of 32 through `generate`, one slot."""
    import torch
    from transformers import AutoConfig, LlavaForConditionalGeneration

    from pipeline.models import FAMILIES

    config: Any = AutoConfig.from_pretrained(folder)
    where = "cpu" if args.tiny else "cuda"
    with torch.device(where):
        torch.set_default_dtype(torch.bfloat16)
        llava = LlavaForConditionalGeneration(config).eval()
    shape, batch = FAMILIES["joycaption"].dims_of(config.to_dict()), 32
    ids = torch.full((batch, BEFORE + shape.vision.tokens + AFTER), 20, device=where)
    ids[:, BEFORE : BEFORE + shape.vision.tokens] = config.image_token_index
    pixels = torch.rand(batch, 3, shape.vision.side_px, shape.vision.side_px, device=where, dtype=torch.bfloat16)
    name = torch.cuda.get_device_name() if where == "cuda" else "CPU"
    for number in range(args.rounds + 1):
        began = time.monotonic()
        for _ in range(max(1, args.images // batch) if number else 1):
            with torch.inference_mode():
                llava.generate(
                    input_ids=ids,
                    pixel_values=pixels,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=args.caption_tokens,
                    min_new_tokens=args.caption_tokens,
                    do_sample=True,
                )
        if number:
            per_s = max(1, args.images // batch) * batch / (time.monotonic() - began)
            rows.add(
                {
                    "way": "transformers",
                    "k": 1,
                    "images_per_s": per_s,
                    "caption_tokens_per_s": per_s * args.caption_tokens,
                    **shares(shape, name, 1, ids.shape[1], args.caption_tokens, per_s),
                }
            )
    return {"device": name, "engine": "transformers"}


def main() -> None:
    parser = argparse.ArgumentParser("python -m tests.benchmarks.gpu", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=9, help="what everything may take together, by estimate")
    parser.add_argument("--images", type=int, help="images of a pass; default: as many as fit into --minutes")
    parser.add_argument("--caption-tokens", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--slots", type=int, nargs="+", default=SLOTS)
    parser.add_argument("--peaked", action="store_true", help="logits of which top-p keeps a few tokens (vLLM only)")
    parser.add_argument("--engine", choices=("vllm", "transformers"))
    parser.add_argument("--tiny", action="store_true", help="on a CPU, with the stand-in's dimensions")
    parser.add_argument("--json", type=Path, default=FOLDER / "gpu.json")
    args = parser.parse_args()
    import torch

    if not (args.tiny or torch.cuda.is_available()):
        print("no CUDA device: nothing was measured. --tiny runs the code on a CPU", file=sys.stderr)
        sys.exit(NO_CUDA)
    kind = args.engine or ("vllm" if _is_installed("vllm") else "transformers")
    if args.peaked and kind != "vllm":
        parser.error("--peaked: only with --engine vllm, whose models know logit_scale")
    args.images, seconds = choose_images(args, "" if args.tiny else torch.cuda.get_device_name())
    rows = Rows(args.json.with_suffix(".jsonl"))
    expected = "a minute or two" if args.tiny else f"{seconds / 60:.0f} minutes (an estimate)"
    print(
        f"expected: {expected}, {args.images} images a pass; figures go to {args.json.with_suffix('.jsonl')}",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_model(Path(scratch, "model"), tiny=args.tiny, peaked=args.peaked)
        if kind == "vllm":
            about = asyncio.run(measure_vllm(folder, args, rows))
        else:
            about = measure_transformers(folder, args, rows)
    publish(args, rows.all, about)


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


if __name__ == "__main__":
    main()
