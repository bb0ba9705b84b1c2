"""JoyCaption's exact shape on a GPU: images and tokens a second, and their share of the roofline.

`python -m tests.benchmarks.gpu [--images N] [--caption-tokens T] [--rounds R]`. Weights are random (a model that is
not trained costs what a trained one costs), pictures are noise of photographs' coarseness at 384 x 384, prompts have
the tokens of JoyCaption's (40 before the image, 729 for it, 31 after it), and every answer has T tokens, since a
random model does not stop. Measured is the project's own engine, vLLM; where vLLM is not installed, a batch loop of
`transformers`. Without a CUDA device it says so and ends with exit code 2; --tiny runs the same code on a CPU
with the stand-in's dimensions, to see that it runs.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import itertools
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.report import FOLDER, publish

SLOTS = (1, 2, 4)
BEFORE, AFTER = 40, 31
NO_CUDA = 2


def write_model(folder: Path, *, tiny: bool) -> Path:
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
    if tiny:
        return folder
    config = json.loads((folder / "config.json").read_text())
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


def photographs(num: int, side: int) -> list[Any]:
    """Noise on eight scales, so that neighbours are alike as in a photograph."""
    from PIL import Image

    rng, pictures = np.random.default_rng(0), list[Any]()
    for _ in range(num):
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

    def with_random_weights(spec: Any, size: Any) -> Any:
        made = usual_args(spec, size)
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

    async def one(number: int) -> None:
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
    await asyncio.gather(*(one(number) for number in range(len(pictures))))
    return time.monotonic() - began


async def measure_vllm(folder: Path, args: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    from pipeline.engines.vllm import _device

    engine, names = engine_of(folder, args), (f"pass{number}" for number in itertools.count())
    encode = engine._tokens.encode
    pictures = photographs(args.images, engine._spec.geometry.width_px)
    rows = []
    for k, number in itertools.product(SLOTS, range(args.rounds + 1)):
        engine._tokens.encode = encode
        seconds = await with_vllm(engine, pictures[: args.images if number else 64], k, next(names))
        if number:  # the first warms up
            rows.append(_row(engine, args, k, seconds))
            print(rows[-1], flush=True)
    device, size = _device(), engine._size
    engine.close()
    return rows, {"device": device.name if device else "CPU", "max_num_seqs": size.max_num_seqs, "engine": "vllm"}


def _row(engine: Any, args: argparse.Namespace, k: int, seconds: float) -> dict[str, Any]:
    from pipeline.engines.vllm import _device

    shape, device = engine._tokens.shape, _device()
    prompt_tokens = BEFORE + shape.vision.tokens + AFTER
    return {
        "k": k,
        "images_per_s": args.images / seconds,
        "captions_per_s": k * args.images / seconds,
        "caption_tokens_per_s": k * args.images * args.caption_tokens / seconds,
        **shares(shape, device.name if device else "", k, prompt_tokens, args.caption_tokens, args.images / seconds),
    }


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


def measure_transformers(folder: Path, args: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, Any]]:
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
    rows, name = [], torch.cuda.get_device_name() if where == "cuda" else "CPU"
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
            rows.append(
                {
                    "k": 1,
                    "images_per_s": per_s,
                    "caption_tokens_per_s": per_s * args.caption_tokens,
                    **shares(shape, name, 1, ids.shape[1], args.caption_tokens, per_s),
                }
            )
    return rows, {"device": name, "engine": "transformers"}


def main() -> None:
    parser = argparse.ArgumentParser("python -m tests.benchmarks.gpu", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--caption-tokens", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engine", choices=("vllm", "transformers"))
    parser.add_argument("--tiny", action="store_true", help="on a CPU, with the stand-in's dimensions")
    parser.add_argument("--json", type=Path, default=FOLDER / "gpu.json")
    args = parser.parse_args()
    import torch

    if not (args.tiny or torch.cuda.is_available()):
        print("no CUDA device: nothing was measured. --tiny runs the code on a CPU", file=sys.stderr)
        sys.exit(NO_CUDA)
    kind = args.engine or ("vllm" if importlib.util.find_spec("vllm") else "transformers")
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_model(Path(scratch, "model"), tiny=args.tiny)
        if kind == "vllm":
            rows, about = asyncio.run(measure_vllm(folder, args))
        else:
            rows, about = measure_transformers(folder, args)
    publish(args, rows, about)


if __name__ == "__main__":
    main()
