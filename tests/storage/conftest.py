import uuid

import pytest

from pipeline.storage import open_store
from tests.s3_server import s3_environment  # noqa: F401 - a fixture


@pytest.fixture(params=["memory", "local", "s3"])
def store(request, tmp_path):
    """An empty store of each kind: the suite is the contract."""
    return open_store(url_of(request.param, request, tmp_path))


def url_of(kind, request, tmp_path):
    if kind == "s3":
        request.getfixturevalue("s3_environment")
    name = uuid.uuid4().hex
    return {"memory": f"memory://{name}", "local": f"{tmp_path}/out put", "s3": f"s3://out/{name}/out put"}[kind]
