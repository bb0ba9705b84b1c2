"""Which tests CI may skip, and why: every other skip fails there, since CI would not run what it claims.

Elsewhere than in CI (`CI=true`) a test that lacks a program or a service is skipped as usual.
"""

import os

import pytest

ALLOWED = {
    "needs gcsfs and STORAGE_EMULATOR_HOST": "the emulator of Google Cloud Storage is in no package registry",
    "no mount namespaces": "some containers forbid them; the test mounts small file systems in one of its own",
    "no CRDs of KubeRay": "the CRDs are not part of this repository; .ci/run takes them from beside the clone",
}
"""How the reason of a skip begins, and why it is allowed."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    return _refuse_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    return _refuse_skip((yield))


def _refuse_skip(report):
    """Turn the report of a skip that is not allowed into that of a failure."""
    if os.environ.get("CI") != "true" or not report.skipped or hasattr(report, "wasxfail"):
        return report
    reason = report.longrepr[2].removeprefix("Skipped: ")
    if not reason.startswith(tuple(ALLOWED)):
        report.outcome = "failed"
        report.longrepr = (
            f"{report.nodeid} was skipped ({reason}), and in CI it must run. Let .ci/tools.sh install what it needs, "
            "or add the reason to ALLOWED in tests/skips.py"
        )
    return report
