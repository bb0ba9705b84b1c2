"""What a run costs that finds nearly all done: the shards that are left, and nothing of those that are committed."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.config import load_job
from pipeline.flow.prepared_job import prepare_job
from pipeline.ledger.layout import committed_path
from pipeline.storage import open_store
from tests.cli import run, write_job
from tests.flow.test_flow import jpeg
from tests.readers.shards import tar_of
from tests.s3_proxy import s3_proxy
from tests.s3_server import s3_environment  # noqa: F401 - a fixture

pytestmark = pytest.mark.slow

NUM_SHARDS = 200


@pytest.mark.long
def test_at_99_percent_done_a_resume_reads_less_than_2_percent_of_the_source(tmp_path, s3_environment):  # noqa: F811
    source, output = open_store("s3://out/resume/photos"), open_store("s3://out/resume/captions")
    data = tar_of((f"{number}.jpg", jpeg((number, 0, 0))) for number in range(8))
    names = [f"{number:05d}.tar" for number in range(NUM_SHARDS)]
    job = write_job(tmp_path, "s3://out/resume/photos", "s3://out/resume/captions")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: source.put(name, data), names))
        prepare_job(load_job(job))
        list(pool.map(lambda name: output.put(committed_path(name), b""), names[2:]))
    with s3_proxy(s3_environment["AWS_ENDPOINT_URL"]) as (endpoint, script):
        done = run(tmp_path, "caption", job, AWS_ENDPOINT_URL=endpoint)
    assert done.code == 0, done
    assert f"{NUM_SHARDS} of {NUM_SHARDS} committed" in done.out
    shards = {path: size for path, size in script.sent.items() if path.endswith(".tar")}
    assert {path.rpartition("/")[2] for path in shards} == set(names[:2])
    assert 2 * len(data) <= sum(shards.values()) <= 0.02 * NUM_SHARDS * len(data)
    committed = [path for _, method, path in script.asked if method == "GET" and path.endswith(".tar.parquet")]
    assert {path.rpartition("/")[2].removesuffix(".parquet") for path in committed} <= set(names[:2])
