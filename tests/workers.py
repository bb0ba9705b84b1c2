"""Which tests go to one worker of pytest-xdist (`make test`), and in which order all are handed out.

`xdist_group` would say the first, but xdist 3.8 sets a field for it that pytest 9.2 does not read.
"""

import pytest

TOGETHER = {
    "tests/e2e/test_json.py": "one vLLM engine",
    "tests/e2e/test_quality.py": "one vLLM engine",
    "tests/e2e/test_vllm.py": "one vLLM engine",
    **{
        file: file
        for file in (
            "tests/corpus/test_job.py",
            "tests/flow/test_odd_images.py",
            "tests/flow/test_submit.py",
            "tests/images/test_odd_images.py",
            "tests/jobs/test_playground.py",
            "tests/jobs/test_preview.py",
            "tests/report/test_page.py",
            "tests/standin/test_standin_weights.py",
        )
    },
}
"""Files whose tests share what is expensive to make. All other tests are handed out one by one."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return TOGETHER.get(nodeid.partition("::")[0], nodeid)

    return Scheduling(config, log)


def pytest_collection_modifyitems(config, items):
    """Let a worker have the slow tests first, so that none is left for the end."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)
