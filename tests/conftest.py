"""What holds for every test."""

import signal

import pytest
from hypothesis import settings

from tests.s3_server import stop_shared_servers
from tests.skips import pytest_make_collect_report, pytest_runtest_makereport  # noqa: F401 - hooks
from tests.workers import pytest_collection_modifyitems, pytest_xdist_make_scheduler  # noqa: F401 - hooks

# Never a time in a test: a shared machine may be ten times slower for a moment.
settings.register_profile("joyfleet", deadline=None, print_blob=True)
settings.load_profile("joyfleet")


@pytest.fixture(autouse=True)
def _signals_of_pytest():
    """Put pytest's signal handlers back after a test that called `jobs.__main__.main` in this process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    if any(signal.getsignal(number) != handler for number, handler in before.items()):
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)


def pytest_sessionfinish():
    stop_shared_servers()
