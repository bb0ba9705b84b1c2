"""Whether the job's source and output can be used from a node, with the credentials and the clock that are there."""

import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from pipeline.config import JobConfig, SourceConfig
from pipeline.doctor.check import Context, Finding, Level, Survey, failed, job_of, ok, warning
from pipeline.errors import StoreError
from pipeline.models import family_of, takes_images
from pipeline.readers import list_source, open_head
from pipeline.recipe import find_weights
from pipeline.storage import open_store, probe
from pipeline.storage.clock import server_time, timed_servers
from pipeline.storage.local import LocalStore
from pipeline.storage.publish import PROBE_PREFIX

log = logging.getLogger(__name__)

GIB = 2**30

SKEW_ADVISED_S = 30
"""`status` calls a run silent after three minutes without a heartbeat, by the clocks of the store and of its reader."""
SKEW_MAX_S = 300
"""S3 refuses a request whose signature is more than 15 minutes off, and a clock that is 5 minutes off drifts."""


def source(context: Context) -> Finding:
    """Whether the source can be listed."""
    job = job_of(context)
    listed = list_source(_source_of(job))
    shards = listed.shards
    total = sum(shard.size for shard in shards)
    survey = Survey(
        smallest=min((shard for shard in shards if shard.size), key=lambda shard: shard.size, default=shards[0]),
        largest_bytes=max(shard.size for shard in shards),
    )
    message = f"{len(shards):,} shards, {total / GIB:.1f} GiB"
    if not total:
        return failed(f"{message}: all of them are empty", "restore the source")
    return Finding(level=Level.OK, message=message, survey=survey)


def _source_of(job: JobConfig) -> SourceConfig:
    """The source as readers of the job read it: without images, if the model takes none."""
    geometry = family_of(job.model).geometry_of(find_weights(job.model).stated)
    return job.source if takes_images(geometry) else job.source.without_images()


def reading(context: Context) -> Finding:
    """Whether this node reads an image of the source."""
    job = job_of(context)
    if context.survey is None:
        return failed("not read, since the source could not be listed", "see the check of the source")
    shard = context.survey.smallest
    started = time.monotonic()
    with open_head(shard, _source_of(job), job.images.max_bytes, 1) as reader:
        row = next(iter(reader.rows({0})), None)
    if row is not None and row.data is None and row.reason is None:
        return ok(f"a row of {shard.path} in {time.monotonic() - started:.1f} s")
    if row is None or row.data is None:
        why = "no rows" if row is None else f"{row.reason}, {row.message}" if row.message else f"{row.reason}"
        return warning(f"{shard.url}: its first row has no image ({why})", "look at the source: joyfleet plan JOB")
    return ok(f"an image of {shard.path} in {time.monotonic() - started:.1f} s")


def output(context: Context) -> Finding:
    """Whether this node can write into the output, and create a file there only if it does not exist."""
    store = open_store(job_of(context).output)
    started = time.monotonic()
    probe(store)
    if context.mark is not None and not store.exists(context.mark):
        return failed(
            f"{store.url} on this node is another folder than on the machine of the driver",
            "put the output on S3 or GCS, or on a file system that every node mounts at this path",
        )
    return ok(f"{store.url} creates conditionally; the probe took {time.monotonic() - started:.1f} s")


@contextmanager
def marked_output(context: Context) -> Iterator[Context]:
    """Yield the context with a file in the output that other nodes can look for; only where the output is a folder."""
    store = None if context.job is None else open_store(context.job.output)
    if not isinstance(store, LocalStore):
        yield context
        return
    mark = f"{PROBE_PREFIX}{uuid.uuid4().hex}"
    try:
        store.put(mark, b"")
    except StoreError as err:
        log.warning("%s: no mark for the other nodes, whose own checks say why: %s", store.url, err)
        yield context
        return
    try:
        yield replace(context, mark=mark)
    finally:
        store.delete([mark])


def clock(context: Context) -> Finding:
    """Whether the clock of this node agrees with those of the stores."""
    job = job_of(context)
    offsets: dict[str, float] = {}
    for server in timed_servers((*job.source.read_from, job.output)):
        sent_at = time.time()
        server_s = server_time(server)
        if server_s is None:
            return warning(
                f"{server}: no time; it does not answer, or sends no Date header", "check the network of this node"
            )
        # A Date header has whole seconds; the answer took some of the time.
        offsets[server] = (sent_at + time.time()) / 2 - server_s - 0.5
    if not offsets:
        return ok("neither source nor output is in an object store")
    server, offset = max(offsets.items(), key=lambda item: abs(item[1]))
    message = f"{abs(offset):.0f} s {'ahead of' if offset > 0 else 'behind'} {server}"
    remedy = "set the clock: timedatectl set-ntp true, or the time service of the cloud"
    if abs(offset) > SKEW_MAX_S:
        return failed(f"{message}; S3 refuses requests that are more than 900 s off", remedy)
    if abs(offset) > SKEW_ADVISED_S:
        return warning(message, remedy)
    return ok(f"within {max(1, round(abs(offset)))} s of {server}")
