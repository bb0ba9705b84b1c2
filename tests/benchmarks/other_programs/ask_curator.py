"""Captions with NeMo Curator's stage for images and an OpenAI-compatible server (`stages.synthetic.omni`), resumable.

Its reader of WebDataset needs DALI and makes keys of its own, and the stage takes image files, so the source stage here
writes the images of a tar beside the output, as Curator's `HFDatasetImageReaderStage` does. A tar is a partition of the
source: Curator's checkpoints know whole ones. The stage has no system prompt; its `_build_messages` is extended by one.
One worker with as many requests in flight as the other programs. Run by `peers_programs` in Curator's environment.
"""

import json
import os
import sys
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_curator.core.client import RayClient
from nemo_curator.models.client.openai_client import AsyncOpenAIClient
from nemo_curator.pipeline import Pipeline
from nemo_curator.stages.base import ProcessingStage
from nemo_curator.stages.file_partitioning import FilePartitioningStage
from nemo_curator.stages.resources import Resources
from nemo_curator.stages.synthetic.omni.base import ModelProcessingStage
from nemo_curator.stages.synthetic.omni.io import JsonlSampleWriterStage
from nemo_curator.tasks import FileGroupTask
from nemo_curator.tasks.image import ImageSampleTask, ImageTaskData
from PIL import Image


@dataclass(kw_only=True)
class CaptionData(ImageTaskData):
    """An image with its caption."""

    caption: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {"key": self.image_id, "caption": self.caption, "image_path": str(self.image_path)}


class TarStage(ProcessingStage[FileGroupTask, ImageSampleTask]):
    """The images of a tar as files."""

    name = "tar_images"
    resources = Resources(cpus=0.2)
    batch_size = 1

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def inputs(self) -> tuple[list[str], list[str]]:
        return [], []

    def outputs(self) -> tuple[list[str], list[str]]:
        return ["data"], []

    def process(self, task: FileGroupTask) -> list[ImageSampleTask]:
        samples: list[ImageSampleTask] = []
        for shard in task.data:
            with tarfile.open(shard) as tar:
                tar.extractall(self._folder, filter="data")
                samples += [_sample(Path(self._folder, name)) for name in tar.getnames()]
        return samples


def _sample(path: Path) -> ImageSampleTask:
    return ImageSampleTask(dataset_name="peers", data=CaptionData(image_path=path, image_id=path.stem))


class CountingClient(AsyncOpenAIClient):
    """Appends one byte to a file for each answer."""

    def __init__(self, file: str, **options: Any) -> None:
        super().__init__(**options)
        self._file = file

    async def query_model(self, **request: Any) -> list[str]:
        answers = await super().query_model(**request)
        descriptor = os.open(self._file, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.write(descriptor, b"." * len(answers))
        os.close(descriptor)
        return answers


class CaptionStage(ModelProcessingStage[CaptionData]):
    """A caption for each image."""

    name = "caption"
    resources = Resources(cpus=0.4)

    def __init__(self, job: dict[str, Any]) -> None:
        client = CountingClient(
            job["made"], max_concurrent_requests=job["in_flight"], base_url=f"{job['url']}/v1", api_key="none"
        )
        super().__init__(client, "standin", batch_size=job["in_flight"], **job["sampling"])
        self.generation_config.seed = None  # its default is 0 for every request
        self._job = job

    def num_workers(self) -> int:
        return 1

    def inputs(self) -> tuple[list[str], list[str]]:
        return ["data"], []

    def outputs(self) -> tuple[list[str], list[str]]:
        return ["data"], []

    def build_prompt(self, task: ImageSampleTask[CaptionData]) -> str:
        return self._job["prompt"]

    def _build_messages(self, prompt: str, image: Image.Image | str | None) -> list[dict[str, Any]]:
        return [{"role": "system", "content": self._job["system"]}, *super()._build_messages(prompt, image)]

    def handle_response(self, task: ImageSampleTask[CaptionData], response: str) -> ImageSampleTask[CaptionData]:
        task.data.caption = response
        return task


class WriterStage(JsonlSampleWriterStage):
    """Its writer, in a file of each process: with its own name a restart would empty the file of the run before."""

    resources = Resources(cpus=0.2)

    def setup(self, worker_metadata: Any = None) -> None:
        path = Path(self.output_path)
        self.output_path = str(path.with_stem(f"{path.stem}_{os.getpid()}_{os.urandom(4).hex()}"))
        super().setup(worker_metadata)


def stages(job: dict[str, Any]) -> Iterable[ProcessingStage]:
    output = Path(job["output"])
    partition = FilePartitioningStage(file_paths=job["shards"], files_per_partition=1, file_extensions=[".tar"])
    # Its executor leaves one of two cores to itself, and the stages together must fit into the other one.
    partition.resources = Resources(cpus=0.1)
    return partition, TarStage(str(output / "images")), CaptionStage(job), WriterStage(str(output / "captions.jsonl"))


def main(job: dict[str, Any]) -> None:
    with RayClient(num_cpus=2, include_dashboard=False):
        pipeline = Pipeline(name="peers", stages=list(stages(job)))
        pipeline.run(checkpoint_path=Path(job["output"]) / "checkpoints")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
