"""The same job by the peers: captions a second from cold data, and what a kill costs.

`python -m tests.benchmarks.peers [--images N]`. datatrove takes part where infra/requirements-bench.lock
is installed. Each peer reads the same tar shards and leaves captions on disk as its
own examples do. It is timed twice: from the command to the last caption, and between 20 and 95 % of the captions, when
its start is over. Then it runs again and is killed, with all its processes, when half of the captions are made:
lost are those that had been made and that no file holds.

A caption counts as made when the peer's own code has its text in hand; JoyFleet's when it is staged.
"""

import asyncio
import base64
import contextlib
import importlib.util
import io
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks.report import Middle, arguments, publish

SYSTEM = "You are a helpful image captioner."
PROMPT = "Write a long descriptive caption for this image in a formal tone."
SAMPLING = {"temperature": 0.6, "top_p": 0.9, "max_tokens": 300}
NUM_SEQS = 64
BATCH = 32
TIMEOUT_S = 900
TEMPLATE = Path(__file__).parents[2] / "infra" / "joycaption.jinja"
SUFFIXES = {".jpg", ".png", ".webp"}


def model() -> str:
    from pipeline.config import ModelConfig
    from pipeline.recipe import find_weights

    return find_weights(ModelConfig(id="standin")).path


class Made:
    """One byte in a file for every caption made: what the benchmark watches."""

    def __init__(self, output: Path) -> None:
        self._descriptor = os.open(made_file(output), os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def count(self, captions: int = 1) -> None:
        os.write(self._descriptor, b"." * captions)


def made_file(output: Path) -> Path:
    return output.with_suffix(".made")


def members(shards: Path) -> Iterator[tuple[str, bytes]]:
    """Yield key and bytes of every image."""
    for shard in sorted(shards.rglob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is not None and Path(member.name).suffix in SUFFIXES:
                    yield Path(member.name).stem, file.read()


# JoyFleet ---------------------------------------------------------------------------------------------------------


def joyfleet(shards: Path, output: Path) -> None:
    from pipeline.config import parse_job
    from pipeline.flow.ray_env import prepare_ray_env

    job = parse_job(
        {
            "source": str(shards / "*.tar"),
            "output": str(output),
            "model": "standin",
            "captions": [{"slot": "long", "prompt": PROMPT, "system": SYSTEM}],
            "sampling": SAMPLING,
            "engine": {"max_model_len": 768, "max_num_seqs": NUM_SEQS},
            "quality": {"retry": {"attempts": 0}},
            "cluster": {"object_store_gib": 0.6},
        }
    )
    prepare_ray_env(job.cluster)
    import threading

    from pipeline.flow.driver import run_job
    from pipeline.flow.prepared_job import prepare_job
    from pipeline.flow.run_result import RunResult

    made, counted = Made(output), 0

    def report(now: Any) -> None:
        nonlocal counted
        made.count(now.captions - counted)
        counted = now.captions

    prepared = prepare_job(job)
    outcome = RunResult.of(prepared)
    run_job(prepared, outcome, report, threading.Event())
    made.count(sum(outcome.statuses.values()) - counted)


def kept_by_joyfleet(output: Path) -> int:
    import pyarrow.parquet as pq

    files = [*output.rglob("captions/**/*.parquet"), *output.rglob("staging/**/*.parquet")]
    return sum(pq.read_metadata(file).num_rows for file in files if file.is_file())


# ray.data.llm -----------------------------------------------------------------------------------------------------


def ray_data_llm(shards: Path, output: Path) -> None:
    from pipeline.config import ClusterConfig
    from pipeline.flow.ray_env import prepare_ray_env

    prepare_ray_env(ClusterConfig(address="local"))
    import ray
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    ray.init(address="local", log_to_driver=False, include_dashboard=False, object_store_memory=600 << 20)
    path, made_in = model(), str(output)

    def prepare(row: dict[str, Any]) -> dict[str, Any]:
        from PIL import Image

        data = next(row[suffix[1:]] for suffix in SUFFIXES if row.get(suffix[1:]) is not None)
        return {
            "tokenized_prompt": _ids(path),
            "multimodal_data": {"image": Image.open(io.BytesIO(data)).convert("RGB")},
            "sampling_params": {**SAMPLING, "detokenize": True},
            "key": row["__key__"],
        }

    def finish(row: dict[str, Any]) -> dict[str, Any]:
        Made(Path(made_in)).count()
        return {"key": row["key"], "caption": row["generated_text"]}

    config = vLLMEngineProcessorConfig(
        model_source=path,
        engine_kwargs={
            "dtype": "bfloat16",
            "max_model_len": 768,
            "max_num_seqs": NUM_SEQS,
            "max_num_batched_tokens": 8192,
            "enforce_eager": True,
            "enable_chunked_prefill": False,
            "limit_mm_per_prompt": {"image": 1},
        },
        placement_group_config={"bundle_per_worker": {"CPU": 1}},
        accelerator_type=None,
        batch_size=BATCH,
        concurrency=1,
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
        log_engine_metrics=False,
        runtime_env={"env_vars": {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}},
    )
    processor = build_processor(config, preprocess=prepare, postprocess=finish)
    dataset = ray.data.read_webdataset([str(shard) for shard in sorted(shards.glob("*.tar"))], decoder=None)
    processor(dataset).write_parquet(str(output))
    ray.shutdown()


_PROMPT_IDS: list[int] = []


def _ids(path: str) -> list[int]:
    if not _PROMPT_IDS:
        from pipeline.engines.hub_model import PromptTokens
        from pipeline.models import FAMILIES

        _PROMPT_IDS.extend(PromptTokens(FAMILIES["joycaption"], path).encode(SYSTEM, PROMPT))
    return _PROMPT_IDS


def kept_in_parquet(output: Path) -> int:
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(file).num_rows for file in output.rglob("*.parquet"))


# transformers, as in the author's batch script --------------------------------------------------------------------


def transformers_loop(shards: Path, output: Path) -> None:
    """Batches through `generate`, a text file beside each image."""
    import torch
    from PIL import Image
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    processor = AutoProcessor.from_pretrained(model())
    llava = LlavaForConditionalGeneration.from_pretrained(model(), dtype=torch.bfloat16).eval()
    turns = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": PROMPT}]
    text = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    made, batch = Made(output), list[tuple[str, Any]]()
    output.mkdir()

    def caption() -> None:
        images = [image for _, image in batch]
        inputs = processor(text=[text] * len(images), images=images, return_tensors="pt", padding=True)
        inputs = inputs.to(torch.bfloat16)
        length = inputs["input_ids"].shape[1]
        with torch.inference_mode():
            tokens = llava.generate(**inputs, max_new_tokens=300, do_sample=True, temperature=0.6, top_p=0.9)
        texts = processor.tokenizer.batch_decode(tokens[:, length:], skip_special_tokens=True)
        for (key, _), written in zip(batch, texts, strict=True):
            made.count()
            (output / f"{key}.txt").write_text(written.strip(), encoding="utf-8")
        batch.clear()

    for key, data in members(shards):
        batch.append((key, Image.open(io.BytesIO(data)).convert("RGB").resize((90, 90), Image.Resampling.LANCZOS)))
        if len(batch) == BATCH:
            caption()
    if batch:
        caption()


def kept_as_text(output: Path) -> int:
    return sum(1 for file in output.glob("*.txt") if file.stat().st_size)


def messages(data: bytes) -> list[dict[str, Any]]:
    """The question about an image, as a chat API takes it."""
    image = {"url": f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"}
    content = [{"type": "image_url", "image_url": image}, {"type": "text", "text": PROMPT}]
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]


# vllm serve and an async client -----------------------------------------------------------------------------------


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """What `vllm serve` starts; the CPU build has another name on PyPI, which `vllm` itself stumbles over."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--model", model(), "--served-model-name", "standin", "--host", "127.0.0.1", "--port", str(port)]
    words += ["--dtype", "bfloat16", "--max-model-len", "768", "--max-num-seqs", str(NUM_SEQS)]
    words += ["--max-num-batched-tokens", "8192", "--enforce-eager", "--no-enable-chunked-prefill"]
    words += ["--block-size", "32", "--disable-uvicorn-access-log", "--chat-template", str(TEMPLATE)]
    own = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    server = subprocess.Popen(
        [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *words], env={**os.environ, **own}
    )
    try:
        url = f"http://127.0.0.1:{port}"
        while not _answers(f"{url}/health"):
            if server.poll() is not None:
                raise RuntimeError(f"vllm serve ended with {server.returncode}")
            time.sleep(0.2)
        yield url
    finally:
        server.terminate()
        server.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def vllm_serve(shards: Path, output: Path) -> None:
    """The server's chat API, an async client, one line of JSON per answer."""
    with serving() as url:
        asyncio.run(_client(shards, output, url))


async def _client(shards: Path, output: Path, url: str) -> None:
    import aiohttp

    made, window = Made(output), asyncio.Semaphore(2 * NUM_SEQS)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as http:
        with output.open("a", encoding="utf-8") as lines:

            async def ask(key: str, data: bytes) -> None:
                async with window:
                    body = {"model": "standin", "messages": messages(data), **SAMPLING}
                    async with http.post(f"{url}/v1/chat/completions", json=body) as answer:
                        answer.raise_for_status()
                        text = (await answer.json())["choices"][0]["message"]["content"]
                made.count()
                lines.write(json.dumps({"key": key, "caption": text}) + "\n")

            await asyncio.gather(*(ask(key, data) for key, data in members(shards)))


def kept_as_lines(output: Path) -> int:
    return output.read_text(encoding="utf-8").count("\n") if output.is_file() else 0


# datatrove's inference runner --------------------------------------------------------------------------------------


def datatrove(shards: Path, output: Path) -> None:
    """A rollout per image that posts what the client above posts, with its checkpoints and its cache of answers.

    The server is started for it: it starts vLLM itself only under the name of the CUDA build. It has no reader of
    images: a document carries the key, the rollout takes the bytes from a table beside it.
    """
    from datatrove.data import Document
    from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
    from datatrove.pipeline.writers import JsonlWriter

    made, encoded = Made(output), dict[str, bytes]()

    def documents() -> Iterator[Any]:
        for key, data in members(shards):
            encoded[key] = data
            yield Document(text=PROMPT, id=key)

    async def rollout(document: Any, generate: Any) -> Any:
        result = await generate({"messages": messages(encoded.pop(document.id))})
        made.count()
        return result

    def runner(url: str) -> InferenceRunner:
        config = InferenceConfig(
            server_type="endpoint",
            endpoint_url=url,
            model_name_or_path="standin",
            model_max_context=768,
            default_generation_params=SAMPLING,
            max_concurrent_generations=2 * NUM_SEQS,
        )
        writer = JsonlWriter(str(output), output_filename="${rank}_${chunk_index}.jsonl", compression=None)
        kept = str(checkpoints(output))
        return InferenceRunner(rollout, config, writer, checkpoints_local_dir=kept, records_per_chunk=BATCH)

    with serving() as url:
        runner(url).run(documents())


def checkpoints(output: Path) -> Path:
    return output.with_suffix(".checkpoints")


def kept_by_datatrove(output: Path) -> int:
    """Documents that a restart need not ask again: written ones of whole chunks, checkpoints, cached answers."""
    kept: set[str] = set()
    for file in [*output.rglob("*.jsonl"), *checkpoints(output).rglob("*.jsonl")]:
        for line in file.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):  # the line that the kill cut
                kept.add(json.loads(line)["id"])
    for file in checkpoints(output).rglob("*.sqlite3"):
        with contextlib.closing(sqlite3.connect(file)) as cache:
            kept |= {row[0] for row in cache.execute("SELECT doc_id FROM request_cache WHERE result IS NOT NULL")}
    return len(kept)


PEERS = {
    "joyfleet": (joyfleet, kept_by_joyfleet),
    "ray.data.llm": (ray_data_llm, kept_in_parquet),
    "transformers loop": (transformers_loop, kept_as_text),
    "vllm serve + client": (vllm_serve, kept_as_lines),
    "datatrove": (datatrove, kept_by_datatrove),
}


def watched(name: str, shards: Path, output: Path, num_images: int, stop_at: int) -> dict[str, float]:
    """Run a peer in a process group of its own until `stop_at` captions are made, then kill what is left of it."""
    log = output.with_suffix(".log")
    words = [sys.executable, "-m", "tests.benchmarks.peers", "--part", name, str(shards), str(output)]
    began, middle, made = time.monotonic(), Middle(num_images), 0
    first: float | None = None
    with log.open("w") as out:
        process = subprocess.Popen(words, stdout=out, stderr=out, start_new_session=True)
        while made < stop_at and process.poll() is None:
            time.sleep(0.1)
            made = made_file(output).stat().st_size if made_file(output).exists() else 0
            seconds = time.monotonic() - began
            first = seconds if made and first is None else first
            middle.look(made, seconds, 0.0)
            if seconds > TIMEOUT_S:
                break
    seconds = time.monotonic() - began
    if stop_at < num_images:
        _kill(process)
    elif process.wait(TIMEOUT_S) or made < num_images:
        raise RuntimeError(f"{name} ended with {process.returncode} at {made} captions:\n{log.read_text()[-3000:]}")
    rate = middle.rate()["per_s"] if stop_at == num_images else 0.0
    return {"made": made, "seconds": seconds, "first_s": first or 0.0, "per_s": rate}


def _kill(process: subprocess.Popen[bytes]) -> None:
    family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    for pid in family:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def main() -> None:
    args = arguments("peers", __doc__, images=480)
    if args.part:
        name, shards, output = args.part
        PEERS[name][0](Path(shards), Path(output))
        return
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shards = drawn(folder / "in", args.images)
        for name in PEERS:
            if name == "datatrove" and not importlib.util.find_spec("datatrove"):
                print("datatrove is not installed: pip install --no-deps -r infra/requirements-bench.lock", flush=True)
                continue
            rows.append(measured(name, shards, folder / str(len(rows)), args.images))
            print(rows[-1], flush=True)
    ours = rows[0]
    summary = {
        "ours to each, captions/s": {
            row["peer"]: round(ours["captions_per_s"] / row["captions_per_s"], 2) for row in rows[1:]
        },
        "ours to each, whole run": {row["peer"]: round(row["all_s"] / ours["all_s"], 2) for row in rows[1:]},
    }
    publish(args, rows, summary)


def measured(name: str, shards: Path, folder: Path, num_images: int) -> dict[str, Any]:
    """A whole run of a peer, and one that is killed."""
    folder.mkdir()
    whole = watched(name, shards, folder / "whole", num_images, num_images)
    killed = watched(name, shards, folder / "killed", num_images, num_images // 2)
    return {
        "peer": name,
        "captions_per_s": whole["per_s"],
        "first_caption_s": whole["first_s"],
        "all_s": whole["seconds"],
        "lost_by_kill": max(0, int(killed["made"]) - PEERS[name][1](folder / "killed")),
        "of_made": int(killed["made"]),
    }


def drawn(folder: Path, num_images: int) -> Path:
    """Draw the stand-in's pictures and put them into tar shards of 60, all of them JPEG."""
    from PIL import Image

    from pipeline.standin.demo_data import draw_dataset

    draw_dataset(folder / "drawn", num_images=2 * num_images, seed=12, shard_rows=120)
    images, shards = members(folder / "drawn"), folder / "jpeg"
    shards.mkdir()
    for number in range(-(-num_images // 60)):
        with tarfile.open(shards / f"{number:04d}.tar", "w") as tar:
            for _ in range(min(60, num_images - 60 * number)):
                key, data = next(images)
                encoded = io.BytesIO()
                Image.open(io.BytesIO(data)).convert("RGB").save(encoded, "JPEG", quality=90)
                info = tarfile.TarInfo(f"{key}.jpg")
                info.size = len(encoded.getvalue())
                tar.addfile(info, io.BytesIO(encoded.getvalue()))
    return shards


if __name__ == "__main__":
    main()
