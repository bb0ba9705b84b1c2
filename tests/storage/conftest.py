import os
import uuid

import pytest

from pipeline.storage import open_store
from tests.memory_store import MemoryStore
from tests.s3_server import moto_environment, s3_environment  # noqa: F401 - fixtures

SHARED = ("local", "s3", "s3 of moto", "gs")
"""Kinds of stores that several processes can open; a memory store is of one process."""

of_several_processes = pytest.mark.parametrize("store", SHARED, indirect=True)


@pytest.fixture(params=["memory", *SHARED])
def store(request, tmp_path, monkeypatch):
    """An empty store of each kind: the suite is the contract."""
    if request.param.startswith("s3"):
        environment = request.getfixturevalue("s3_environment" if request.param == "s3" else "moto_environment")
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
    if request.param == "gs" and "STORAGE_EMULATOR_HOST" not in os.environ:
        pytest.skip("needs gcsfs and STORAGE_EMULATOR_HOST: googleapis/storage-testbench, with a bucket named out")
    name = uuid.uuid4().hex
    if request.param == "memory":
        return MemoryStore(f"memory://{name}")
    urls = {"local": f"{tmp_path}/out put", "gs": f"gs://out/{name}/out put"}
    return open_store(urls.get(request.param, f"s3://out/{name}/out put"))
