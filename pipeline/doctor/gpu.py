"""Whether the GPUs of a node can run an engine: their driver, PyTorch's build, and their free memory.

`nvidia-smi` answers without PyTorch, and names the GPUs of a node also where Ray hides them from a task.
"""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.config import EngineConfig
from pipeline.doctor.check import Context, Finding, Level, failed, hosts_model, job_of, ok, warning
from pipeline.engines.sizing import Device, size_for
from pipeline.errors import ConfigError
from pipeline.models import ModelDims, family_of
from pipeline.recipe import find_weights

GIB = 2**30
MIB = 2**20

MIN_DRIVER = 580
"""Of CUDA 13.0, which PyTorch 2.13, the one that vLLM 0.29 requires, is built for."""

_FIELDS = "index,name,driver_version,memory.total,memory.free,compute_cap"
_NO_GPU = "no NVIDIA GPU on this machine: engines use the CPU build of vLLM"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Card:
    """One GPU as `nvidia-smi` lists it."""

    index: int
    name: str
    driver: str
    total_bytes: int
    free_bytes: int
    capability: tuple[int, int]


class _NoAnswer(Exception):
    """`nvidia-smi` is there and lists no GPU; the message is its own."""


def _cards() -> Sequence[_Card]:
    """Return the GPUs of this machine; none where `nvidia-smi` is not installed.

    Raises:
        _NoAnswer: it fails, as after an update of the driver without a restart.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    words = [program, f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise _NoAnswer(f"exit code {done.returncode}: {(done.stdout + done.stderr).strip()}")
    try:
        return [_card(line) for line in done.stdout.splitlines() if line.strip()]
    except ValueError as err:
        raise _NoAnswer(f"its answer has another form: {done.stdout.strip()!r}") from err


def _card(line: str) -> _Card:
    index, name, driver, total, free, capability = (field.strip() for field in line.split(","))
    major, minor = capability.split(".")
    return _Card(
        index=int(index),
        name=name,
        driver=driver,
        total_bytes=int(total) * MIB,
        free_bytes=int(free) * MIB,
        capability=(int(major), int(minor)),
    )


def driver(context: Context) -> Finding:
    """Whether the NVIDIA driver is new enough."""
    try:
        cards = _cards()
    except _NoAnswer as err:
        return failed(f"nvidia-smi does not list the GPUs ({err})", "restart the machine, or install the driver again")
    if not cards:
        if context.needs_gpu:
            return failed(
                "this node needs a GPU, and nvidia-smi lists none",
                f"install NVIDIA's driver, {MIN_DRIVER} or newer; in a container, start it with the GPUs (--gpus all)",
            )
        return ok(_NO_GPU)
    found = cards[0].driver
    if not found.partition(".")[0].isdigit() or int(found.partition(".")[0]) < MIN_DRIVER:
        return failed(
            f"driver {found}; PyTorch 2.13 is built for CUDA 13.0, which needs {MIN_DRIVER} or newer",
            f"install NVIDIA's driver {MIN_DRIVER} or newer on the machine, or choose a machine image that has it",
        )
    return ok(f"driver {found}, {len(cards)} x {cards[0].name}")


def cuda(context: Context) -> Finding:
    """Whether PyTorch computes on every GPU of the node."""
    import torch  # noqa: PLC0415 - it takes seconds to import, and only a node with engines has it

    build = torch.version.cuda
    try:
        num_cards = len(_cards())
    except _NoAnswer:
        num_cards = 1  # there are some: the check of the driver says what is wrong
    if not num_cards and not context.needs_gpu:
        return ok(f"PyTorch {torch.__version__}, no GPU to use")
    if build is None:
        return failed(
            f"PyTorch {torch.__version__} is a build for the CPU, and this node has GPUs",
            "install the GPU build: make setup KIND=gpu",
        )
    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not visible:
        return failed(
            f"PyTorch {torch.__version__} (CUDA {build}) sees none of {num_cards} GPUs",
            f"the driver must be {MIN_DRIVER} or newer, and CUDA_VISIBLE_DEVICES must not hide the GPUs",
        )
    for index in range(visible):
        # A product of small whole numbers is exact: another result is a broken GPU or a broken build.
        ones = torch.ones((256, 256), device=f"cuda:{index}", dtype=torch.bfloat16)
        if float((ones @ ones).sum()) != 256.0**3:
            return failed(f"GPU {index} computes a product of ones wrong", "take the GPU out of use; run `dcgmi diag`")
    message = f"PyTorch {torch.__version__}, CUDA {build}, {visible} of {num_cards} GPUs compute"
    return ok(message) if visible >= num_cards else warning(message, "CUDA_VISIBLE_DEVICES hides the others")


def memory(context: Context) -> Finding:
    """Whether each GPU has the free memory that an engine claims, and whether the model fits."""
    try:
        cards = _cards()
    except _NoAnswer as err:
        return failed(f"nvidia-smi does not list the GPUs ({err})", "see the check of the driver")
    if not cards:
        return failed("no GPU is listed", "see the check of the driver") if context.needs_gpu else ok(_NO_GPU)
    engine = EngineConfig() if context.job is None else context.job.engine
    for card in cards:
        claimed = engine.gpu_memory_utilization * card.total_bytes
        if card.free_bytes < claimed:
            return Finding(
                level=Level.WARNING if context.job is None else Level.FAILED,
                message=f"GPU {card.index} {card.name}: {card.free_bytes / GIB:.1f} of "
                f"{card.total_bytes / GIB:.1f} GiB are free; an engine claims {claimed / GIB:.1f} GiB "
                f"(engine.gpu_memory_utilization {engine.gpu_memory_utilization:g})",
                remedy="end the processes that use the GPU (nvidia-smi lists them), or lower "
                "engine.gpu_memory_utilization",
            )
    if context.job is not None and hosts_model(context):
        dims = _dims(context)
        if dims is not None:
            _check_size(engine, dims, cards)
    least = min(card.free_bytes for card in cards)
    return ok(f"{least / GIB:.1f} GiB or more of {cards[0].total_bytes / GIB:.1f} GiB are free on each GPU")


def _dims(context: Context) -> ModelDims | None:
    """The dimensions of the job's model; None for a text model whose files are not here."""
    model = job_of(context).model
    family, stated = family_of(model), find_weights(model).stated
    return family.dims if stated is None else family.dims_of(stated)


def _check_size(engine: EngineConfig, dims: ModelDims, cards: Sequence[_Card]) -> None:
    for card in cards:
        device = Device(name=card.name, memory_bytes=float(card.total_bytes), capability=card.capability)
        try:
            size_for(engine, dims, device)
        except ConfigError as err:
            raise ConfigError(f"GPU {card.index}: {err}") from err
