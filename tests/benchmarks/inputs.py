"""CPU of preparing a question for vLLM's engine: its own way with a raw prompt, and ours, at 384 x 384 pixels.

`python -m tests.benchmarks.inputs [--images N]`. No engine runs: vLLM's input processor is given JoyCaption's shape
and turns N images with k prompts each into what would be sent to the engine's process; rounds alternate.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.gpu import photographs, write_model
from tests.benchmarks.report import arguments, median, publish

SLOTS = (1, 4)
SYSTEM = "You are a helpful image captioner."
PROMPTS = (
    "Write a long description.",
    "Write a short description.",
    "Write a list of Booru tags.",
    "Name the colours.",
)


def made_ready(folder: Path) -> tuple[Any, Any]:
    """Return an engine of ours without its engine process, and vLLM's input processor."""
    from pipeline.config import EngineConfig, SamplingConfig
    from pipeline.engines import EngineSpec
    from pipeline.engines.factory import _prepare_process
    from pipeline.models import FAMILIES, FixedSize

    spec = EngineSpec(
        config=EngineConfig(),
        sampling=SamplingConfig(),
        max_tokens=300,
        model_path=str(folder),
        revision=None,
        family="joycaption",
        geometry=FixedSize(384, 384),
    )
    _prepare_process(spec.config)
    import torch
    from vllm.v1.engine.input_processor import InputProcessor

    from pipeline.engines import vllm as door
    from pipeline.engines.sizing import size_for

    torch.set_num_threads(1)
    args = door._engine_args(spec, size_for(spec.config, FAMILIES["joycaption"].dims, None), None)
    # Before this way of ours the engine had it: pixels seen once are not prepared again.
    args.mm_processor_cache_gb = 1
    usual = door.VllmEngine._started
    door.VllmEngine._started = lambda engine: (None, None)
    engine = door.VllmEngine(spec)
    door.VllmEngine._started = usual
    return engine, InputProcessor(args.create_engine_config())


def cpu_ms(engine: Any, processor: Any, pictures: list[Any], k: int, name: str) -> float:
    """CPU milliseconds a question."""
    from PIL import Image
    from vllm import SamplingParams

    from pipeline.engines import EngineRequest

    began = time.process_time()
    for number, pixels in enumerate(pictures):
        for prompt in PROMPTS[:k]:
            image_id = f"{name}#{number}"
            question = EngineRequest(
                id=image_id, pixels=pixels, image_id=image_id, system=SYSTEM, prompt=prompt, seed=number
            )
            ids = engine._tokens.encode(SYSTEM, prompt)
            ready = (
                engine._input(question, ids)
                if name.startswith("ours")
                else {
                    "prompt_token_ids": list(ids),
                    "multi_modal_data": {"image": Image.fromarray(pixels)},
                    "multi_modal_uuids": {"image": image_id},
                }
            )
            processor.process_inputs(image_id, ready, SamplingParams(), ("generate",))
    return 1000 * (time.process_time() - began) / (len(pictures) * k)


def main() -> None:
    args = arguments("inputs", __doc__, images=64, rounds=5)
    rows = []
    pictures = photographs(8, 384) * (args.images // 8)
    with tempfile.TemporaryDirectory() as scratch:
        engine, processor = made_ready(write_model(Path(scratch, "model"), tiny=False))
        for k in SLOTS:
            for number in range(args.rounds + 1):
                raw, ours = (cpu_ms(engine, processor, pictures, k, f"{name}{k}{number}") for name in ("raw", "ours"))
                if number:  # the first warms up
                    rows.append({"k": k, "raw_cpu_ms": raw, "ours_cpu_ms": ours, "ratio": ours / raw})
    ratios = {f"k={k}": median([row["ratio"] for row in rows if row["k"] == k]) for k in SLOTS}
    publish(args, rows, {"CPU of a question, ours to a raw prompt's, medians": ratios})


if __name__ == "__main__":
    main()
