"""Captions with Daft's `prompt` and its OpenAI provider, as its page "Prompting with vLLM Online Serving" shows.

Its provider `vllm-prefix-caching` refuses images and system prompts (Daft 0.7.26, daft/functions/ai/__init__.py). Daft
has no reader of WebDataset: the tars are read with `tarfile`. Its checkpoints need its Ray runner and an S3 store, so a
run that was killed starts over. Run by `peers_programs` in Daft's environment.
"""

import json
import os
import sys
import tarfile
from pathlib import Path
from typing import Any

import daft
from daft.ai.openai.protocols.prompter import OpenAIPrompter
from daft.functions import prompt

BATCH = 32


def count_answers(file: str) -> None:
    """Append one byte to a file for each answer that Daft's own code gets."""
    descriptor = os.open(file, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    ask = OpenAIPrompter.prompt

    async def counted(self: OpenAIPrompter, messages: tuple[Any, ...]) -> Any:
        answer = await ask(self, messages)
        os.write(descriptor, b".")
        return answer

    OpenAIPrompter.prompt = counted


def main(job: dict[str, Any]) -> None:
    count_answers(job["made"])
    keys, images = list[str](), list[bytes]()
    for shard in sorted(Path(job["shards"]).glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is not None:
                    keys.append(Path(member.name).stem)
                    images.append(file.read())
    daft.set_provider("openai", api_key="none", base_url=f"{job['url']}/v1")
    asked = prompt(
        [daft.col("jpg"), daft.lit(job["prompt"])],
        system_message=job["system"],
        model="standin",
        use_chat_completions=True,
        **job["sampling"],
    )
    table = daft.from_pydict({"key": keys, "jpg": images}).into_batches(BATCH)
    table.with_column("caption", asked).select("key", "caption").write_parquet(job["output"])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
