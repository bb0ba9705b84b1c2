import uuid

import pytest

from pipeline.storage import open_store, publish
from tests.memory_store import MemoryStore
from tests.s3_server import s3_environment  # noqa: F401 - a fixture


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(publish, "BACKOFF_S", 0.0)


@pytest.fixture
def store():
    return MemoryStore(f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def local(tmp_path):
    return open_store(f"{tmp_path}/out")


@pytest.fixture
def s3(s3_environment):  # noqa: F811 - the fixture imported above
    return open_store(f"s3://out/{uuid.uuid4().hex}")
