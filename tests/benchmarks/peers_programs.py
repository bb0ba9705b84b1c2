"""The programs of `peers`: the same job by each, and the keys of the images whose captions it has kept.

Each reads the same tar shards and leaves captions on disk as its own examples do, with its own default of threads. A
caption counts as made when the program's own code has its text; JoyFleet's when it is staged. Daft, NeMo Curator and
CaptionFlow run in environments of their own (infra/peers.sh); their scripts are in `other_programs`.
"""

import asyncio
import base64
import contextlib
import io
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

SYSTEM = "You are a helpful image captioner."
PROMPT = "Write a long descriptive caption for this image in a formal tone."
SAMPLING = {"temperature": 0.6, "top_p": 0.9, "max_tokens": 300}
NUM_SEQS = 64
BATCH = 32
TIMEOUT_S = 900
IN_FLIGHT = 2 * NUM_SEQS
ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "infra" / "joycaption.jinja"
ENVIRONMENTS = ROOT / "out" / "peers"
"""Where infra/peers.sh makes them."""
SCRIPTS = Path(__file__).parent / "other_programs"
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


def answered_file(output: Path) -> Path:
    """Where a program that asks a server of vLLM leaves how many requests the server answered in its last run."""
    return output.with_suffix(".answered")


def members(shards: Path) -> Iterator[tuple[str, bytes]]:
    """Yield key and bytes of every image."""
    for shard in sorted(shards.rglob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is not None and Path(member.name).suffix in SUFFIXES:
                    yield Path(member.name).stem, file.read()


# JoyFleet ---------------------------------------------------------------------------------------------------------


def joyfleet(shards: Path, output: Path, *, seeded: bool) -> None:
    from pipeline.config import parse_job
    from pipeline.flow.ray_env import prepare_ray_env

    job = parse_job(
        {
            "source": str(shards / "*.tar"),
            "output": str(output),
            "model": "standin",
            "captions": [{"slot": "long", "prompt": PROMPT, "system": SYSTEM}],
            "sampling": {**SAMPLING, "seeded": seeded},
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
        made.count(now.images_done - counted)
        counted = now.images_done

    prepared = prepare_job(job)
    outcome = RunResult.of(prepared)
    run_job(prepared, outcome, report, threading.Event())
    made.count(outcome.images_captioned - counted)


def kept_by_joyfleet(output: Path) -> list[str]:
    return _keys([*output.rglob("captions/**/*.parquet"), *output.rglob("staging/**/*.parquet")])


def _keys(files: list[Path]) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    keys: list[str] = []
    for file in files:
        with contextlib.suppress(pa.ArrowInvalid):  # a file that the kill cut
            keys += pq.read_table(file, columns=["key"], partitioning=None)["key"].to_pylist()
    return keys


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


def kept_in_parquet(output: Path) -> list[str]:
    return _keys(list(output.rglob("*.parquet")))


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
    output.mkdir(exist_ok=True)

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


def kept_as_text(output: Path) -> list[str]:
    return [file.stem for file in output.glob("*.txt") if file.stat().st_size]


def messages(data: bytes) -> list[dict[str, Any]]:
    """The question about an image, as a chat API takes it."""
    image = {"url": f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"}
    content = [{"type": "image_url", "image_url": image}, {"type": "text", "text": PROMPT}]
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]


# vllm serve and an async client -----------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def serving(output: Path) -> Iterator[str]:
    """What `vllm serve` starts; the CPU build has another name on PyPI, which `vllm` itself stumbles over."""
    port = free_port()
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
        answered_file(output).write_text(str(_num_answered(url)))
    finally:
        server.terminate()
        server.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def _num_answered(url: str) -> int:
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as page:
        lines = page.read().decode().splitlines()
    return int(sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:request_success_total{")))


def vllm_serve(shards: Path, output: Path) -> None:
    """The server's chat API, an async client, one line of JSON per answer."""
    with serving(output) as url:
        asyncio.run(_client(shards, output, url))


async def _client(shards: Path, output: Path, url: str) -> None:
    import aiohttp

    made, window = Made(output), asyncio.Semaphore(IN_FLIGHT)
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


def kept_as_lines(*files: Path) -> list[str]:
    keys: list[str] = []
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
            with contextlib.suppress(json.JSONDecodeError):  # the line that the kill cut
                keys.append(json.loads(line)["key"])
    return keys


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
            max_concurrent_generations=IN_FLIGHT,
        )
        writer = JsonlWriter(str(output), output_filename="${rank}_${chunk_index}.jsonl", compression=None)
        kept = str(checkpoints(output))
        return InferenceRunner(rollout, config, writer, checkpoints_local_dir=kept, records_per_chunk=BATCH)

    with serving(output) as url:
        runner(url).run(documents())


def checkpoints(output: Path) -> Path:
    return output.with_suffix(".checkpoints")


def kept_by_datatrove(output: Path) -> list[str]:
    """Documents that a restart need not ask again: written ones of whole chunks, checkpoints, cached answers."""
    kept: set[str] = set()
    for file in [*output.rglob("*.jsonl"), *checkpoints(output).rglob("*.jsonl")]:
        for line in file.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):  # the line that the kill cut
                kept.add(json.loads(line)["id"])
    for file in checkpoints(output).rglob("*.sqlite3"):
        with contextlib.closing(sqlite3.connect(file)) as cache:
            kept |= {row[0] for row in cache.execute("SELECT doc_id FROM request_cache WHERE result IS NOT NULL")}
    return sorted(kept)


# Daft and NeMo Curator, in environments of their own ---------------------------------------------------------------


def by_server(name: str, shards: Path, output: Path) -> None:
    """Run the script of a program that asks a server of vLLM, in its environment."""
    job = {
        "system": SYSTEM,
        "prompt": PROMPT,
        "sampling": SAMPLING,
        "in_flight": IN_FLIGHT,
        "shards": str(shards),
        "output": str(output),
        "made": str(made_file(output)),
    }
    output.mkdir(exist_ok=True)
    python = python_of(name)
    env = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}"}
    with serving(output) as url:
        subprocess.run([python, SCRIPTS / f"ask_{name}.py", json.dumps({**job, "url": url})], env=env, check=True)


def python_of(environment: str) -> Path:
    return ENVIRONMENTS / environment / "bin" / "python"


def kept_by_curator(output: Path) -> list[str]:
    return kept_as_lines(*output.glob("*.jsonl"))


# CaptionFlow: an orchestrator and a worker with vLLM in its process -------------------------------------------------


def captionflow(shards: Path, output: Path) -> None:
    """Its two commands with the settings of its examples, but for the job's; the worker ends when it gets no more work.

    It sends no system prompt and takes the chat template of the model's folder, so the folder has one that writes it.
    Its reader of tars needs an index of each, which its own tool makes first.
    """
    python, port = python_of("captionflow"), free_port()
    output.mkdir(exist_ok=True)
    model_folder = _with_system_prompt(output / "model")
    orchestrator, worker = _captionflow_configs(shards, output, model_folder, port)
    command = python.parent / "caption-flow"
    own = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "CUDA_VISIBLE_DEVICES": ""}
    index = [python.parent / "webshart", "extract-metadata", "--source", shards, "--destination", output / "index"]
    subprocess.run(index, cwd=output, check=True)
    serving_work = subprocess.Popen([command, "orchestrator", "--config", orchestrator, "--no-ssl"], cwd=output)
    try:
        launcher = [python, SCRIPTS / "captionflow_worker.py", made_file(output), command]
        subprocess.run([*launcher, "worker", "--config", worker], cwd=output, env=own, check=True)
    finally:
        serving_work.send_signal(signal.SIGINT)
        serving_work.wait(60)


def _with_system_prompt(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for file in Path(model()).iterdir():
        link = folder / file.name
        if file.name != "chat_template.jinja" and not link.exists():
            link.symlink_to(file)
    template = TEMPLATE.read_text(encoding="utf-8").replace("namespace(system='')", f"namespace(system={SYSTEM!r})")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def _captionflow_configs(shards: Path, output: Path, model_folder: Path, port: int) -> tuple[Path, Path]:
    """Write its two config files, with the settings of its example for large WebDatasets where the job has none."""
    import yaml

    token = "peers"
    orchestrator = {
        "host": "127.0.0.1",
        "port": port,
        "chunk_size": 1000,
        "chunks_per_request": 1,
        "chunk_buffer_multiplier": 2,
        "min_chunk_buffer": 10,
        "dataset": {
            "type": "local",
            "processor_type": "webdataset",
            "dataset_path": str(shards),
            "metadata_path": str(output / "index"),
            "name": "peers",
        },
        "vllm": {
            "model": str(model_folder),
            "tensor_parallel_size": 1,
            "max_model_len": 768,
            "dtype": "bfloat16",
            "enforce_eager": True,
            "limit_mm_per_prompt": {"image": 1},
            "batch_size": NUM_SEQS,
            "sampling": {**SAMPLING, "repetition_penalty": 1.0},
            "inference_prompts": [PROMPT],
        },
        "storage": {
            "data_dir": str(output / "data"),
            "checkpoint_dir": str(output / "checkpoints"),
            "checkpoint_interval": 1000,
            "caption_buffer_size": 100,
            "job_buffer_size": 100,
            "contributor_buffer_size": 10,
        },
        "auth": {"worker_tokens": [{"token": token, "name": token}]},
    }
    worker = {"server": f"ws://127.0.0.1:{port}", "token": token, "vllm": True, "when_finished": "shutdown"}
    files = output / "orchestrator.yaml", output / "worker.yaml"
    for file, config in zip(files, ({"orchestrator": orchestrator}, {"worker": worker}), strict=True):
        file.write_text(yaml.safe_dump(config), encoding="utf-8")
    return files


def kept_by_captionflow(output: Path) -> list[str]:
    """The keys in its Lance data set, read in its own environment."""
    script = SCRIPTS / "captionflow_keys.py"
    data = output / "data" / "captions.lance"
    if not data.exists():
        return []
    done = subprocess.run([python_of("captionflow"), script, data], capture_output=True, text=True, check=True)
    return done.stdout.split()


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program of the comparison."""

    title: str
    run: Callable[[Path, Path], None]
    kept: Callable[[Path], list[str]]
    """Keys of the images whose captions an output has, one for each caption."""
    expected_s: float
    """Of a run of 480 images on two quiet cores."""
    environment: str | None = None
    """One of infra/peers.sh, which it needs."""
    runs_there: bool = False
    """Whether `run` itself is called in that environment."""

    @property
    def python(self) -> str:
        """The Python for `run`."""
        return str(python_of(self.environment)) if self.environment and self.runs_there else sys.executable

    def missing(self) -> str | None:
        """Return how to install it, if it is not."""
        if self.environment and not python_of(self.environment).exists():
            return f"infra/peers.sh {self.environment}"
        return None


PROGRAMS = {
    "joyfleet": Program(title="JoyFleet", run=partial(joyfleet, seeded=False), kept=kept_by_joyfleet, expected_s=38),
    "vllm-serve": Program(title="`vllm serve` and an async client", run=vllm_serve, kept=kept_as_lines, expected_s=50),
    "ray-data-llm": Program(title="Ray Data LLM", run=ray_data_llm, kept=kept_in_parquet, expected_s=70),
    "joyfleet-seeded": Program(
        title="JoyFleet, seeds", run=partial(joyfleet, seeded=True), kept=kept_by_joyfleet, expected_s=38
    ),
    "datatrove": Program(
        title="datatrove",
        run=datatrove,
        kept=kept_by_datatrove,
        expected_s=50,
        environment="datatrove",
        runs_there=True,
    ),
    "transformers": Program(title="`transformers` loop", run=transformers_loop, kept=kept_as_text, expected_s=19),
    "daft": Program(
        title="Daft", run=partial(by_server, "daft"), kept=kept_in_parquet, expected_s=50, environment="daft"
    ),
    "curator": Program(
        title="NeMo Curator",
        run=partial(by_server, "curator"),
        kept=kept_by_curator,
        expected_s=80,
        environment="curator",
    ),
    "captionflow": Program(
        title="CaptionFlow", run=captionflow, kept=kept_by_captionflow, expected_s=70, environment="captionflow"
    ),
}
"""By the name for `--only`, in the order of the first round."""
