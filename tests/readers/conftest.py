"""What the readers' tests share: a real S3 server."""

from tests.s3_server import s3_environment  # noqa: F401 - a fixture
