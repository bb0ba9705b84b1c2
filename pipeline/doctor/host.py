"""What an engine and Ray need of a machine beside GPUs: a compiler, shared memory, open files, space on disks."""

import os
import resource
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

import psutil

from pipeline.doctor.check import Context, Finding, Level, failed, hosts_model, job_of, ok, warning
from pipeline.models import BFLOAT16, family_of
from pipeline.recipe import find_weights

GIB = 2**30

PROGRAM = b"#include <Python.h>\n#include <cmath>\nint main() { return std::isnan(0.0); }\n"
"""What Triton and torch.compile build at the start of an engine needs these two headers."""

SHARED_MIN_BYTES = 1 * GIB
"""Docker gives a container 64 MiB. Ranks of one replica exchange tensors there, and Ray keeps batches there."""
OBJECT_STORE_SHARE = 0.3
"""Of the memory: what Ray takes for its object store by default."""

OPEN_FILES_MIN, OPEN_FILES_ADVISED = 4096, 8192
"""Below the first one Ray warns of connection errors, and it recommends the second one (2.60, worker.py)."""

READ_MIN_BYTES = 1 * GIB
"""Free space for the copies of shards, if their sizes are not known, and for Ray's sessions and logs."""
DISK_ADVISED_BYTES = 10 * GIB
"""Ray moves batches to the disk when its object store is full."""
WEIGHTS_FACTOR = 1.1
"""The files of JoyCaption alpha-two are 5 % larger than all weights in bfloat16: some are stored in float32."""


def compiler(context: Context) -> Finding:
    """Whether a C++ program that includes Python's headers compiles."""
    level = Level.FAILED if context.needs_gpu or shutil.which("nvidia-smi") else Level.WARNING
    words = shlex.split(os.environ.get("CXX") or "g++")
    if shutil.which(words[0]) is None:
        return Finding(
            level=level,
            message=f"no {words[0]} on PATH; engines on a GPU compile kernels when they start",
            remedy="apt-get install g++",
        )
    include = sysconfig.get_path("include")
    with tempfile.TemporaryDirectory(prefix="joyfleet-") as folder:
        done = subprocess.run(
            [*words, f"-I{include}", "-c", "-x", "c++", "-", "-o", str(Path(folder, "program.o"))],
            input=PROGRAM,
            capture_output=True,
            check=False,
        )
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        return Finding(
            level=level,
            message=f"{words[0]} does not compile a program with Python.h: {lines[0] if lines else done.returncode}",
            remedy="apt-get install g++ libc6-dev python3-dev (the headers of this Python belong in " + include + ")",
        )
    return ok(f"{words[0]} compiles with Python's headers")


def shared_memory(context: Context) -> Finding:
    """Whether /dev/shm holds Ray's object store, and the tensors of replicas with several ranks."""
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return failed("/dev/shm does not exist", "mount a tmpfs there")
    total, free = shutil.disk_usage(folder).total, shutil.disk_usage(folder).free
    wanted = int(OBJECT_STORE_SHARE * psutil.virtual_memory().total)
    sizes = f"/dev/shm: {_gib(free)} of {_gib(total)} are free"
    remedy = (
        "give the container more: docker run --shm-size=16g; on Kubernetes an emptyDir with medium: Memory at /dev/shm"
    )
    ranks = 1 if context.job is None else context.job.engine.tensor_parallel_size
    if free < SHARED_MIN_BYTES and ranks > 1:
        return failed(f"{sizes}; {ranks} ranks of a replica need {_gib(SHARED_MIN_BYTES)}", remedy)
    given = None if context.job is None else context.job.cluster.object_store_gib
    wanted = wanted if given is None else int(given * GIB)
    if free < wanted:
        return warning(f"{sizes}; Ray's object store takes {_gib(wanted)}, and is on the disk otherwise", remedy)
    return ok(sizes)


def open_files(context: Context) -> Finding:
    """Whether a process may open as many files as Ray needs. Ray raises the soft limit to the hard one."""
    del context
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return ok("no limit of open files")
    message = f"a process may open {hard:,} files"
    remedy = "raise the hard limit to 65536: ulimit -Hn, LimitNOFILE= of systemd, or docker run --ulimit nofile=65536"
    if hard < OPEN_FILES_MIN:
        return failed(f"{message}; Ray loses connections below {OPEN_FILES_MIN:,}", remedy)
    if hard < OPEN_FILES_ADVISED:
        return warning(f"{message}; Ray recommends {OPEN_FILES_ADVISED:,}", remedy)
    return ok(message)


def disk_for_reading(context: Context) -> Finding:
    """Whether the temporary folder holds the shards that are read at the same time."""
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    copied = 0
    if context.survey is not None and "://" in context.survey.smallest.url:
        copied = context.survey.largest_bytes * context.num_readers
    message = f"{folder}: {_gib(free)} are free"
    remedy = f"free space, or set TMPDIR to a larger disk; Ray's own files are in RAY_TMPDIR ({folder} by default)"
    if free < max(READ_MIN_BYTES, copied):
        why = f"{context.num_readers} shards of up to {_gib(context.survey.largest_bytes)}" if context.survey else "Ray"
        smaller = ", or lower cluster.max_concurrent_reads" if copied > READ_MIN_BYTES else ""
        return failed(f"{message}; {why} may need {_gib(max(READ_MIN_BYTES, copied))}", remedy + smaller)
    if free < DISK_ADVISED_BYTES:
        return warning(f"{message}; Ray may need {_gib(DISK_ADVISED_BYTES)} when its object store is full", remedy)
    return ok(message)


def disk_for_weights(context: Context) -> Finding:
    """Whether the cache of the hub has the model, or room for it."""
    model = job_of(context).model
    if find_weights(model).stated is not None:
        return ok(f"{model.id} is on the disk")
    cache, dims = _hub_cache(), family_of(model).dims
    blobs = cache / f"models--{model.id.replace('/', '--')}" / "blobs"
    present = sum(file.stat().st_size for file in blobs.iterdir() if file.is_file()) if blobs.is_dir() else 0
    existing = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if dims is None:
        message = f"{cache}: {_gib(free)} are free; the size of {model.id} is not known here"
        return warning(message, "compare with the size that its page on the hub gives")
    needed = WEIGHTS_FACTOR * dims.weight_bytes(BFLOAT16)
    message = f"{cache}: {_gib(free)} are free; {model.id} has about {_gib(needed)}, {_gib(present)} of it are there"
    if free < needed - present:
        return failed(message, "free space, or set HF_HOME to a folder on a larger disk, on every node")
    return ok(message)


def _hub_cache() -> Path:
    """Where the hub's client keeps models."""
    home = os.environ.get("HF_HOME") or Path("~/.cache/huggingface").expanduser()
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home, "hub"))


def needs_weights(context: Context) -> bool:
    """Whether a replica on this node may download weights."""
    return hosts_model(context)


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / GIB:.1f} GiB" if num_bytes >= GIB / 10 else f"{num_bytes / 2**20:.0f} MiB"
