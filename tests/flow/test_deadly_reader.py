"""A reader that Ray repeats and that then raises what nobody expects: the terminal tells."""

import pytest

from tests.cli import finish, start, wait_until, write_job
from tests.flow.test_flow import jpeg, tar_of
from tests.gate import Gate

pytestmark = pytest.mark.slow


@pytest.mark.long
def test_an_unexpected_error_of_a_repeated_reader_is_printed_on_the_terminal(tmp_path):
    (tmp_path / "in").mkdir()
    tar_of(tmp_path / "in" / "a.tar", {f"{number:02d}.jpg": jpeg((number, 0, 0)) for number in range(12)})
    job = write_job(tmp_path, tmp_path / "in", tmp_path / "out", engine={"batch_images": 4})
    gate = Gate(tmp_path / "gate")
    process = start(tmp_path, "caption", job, JFTEST_REPEATED=str(tmp_path / "was here"), **gate.environment)
    wait_until((tmp_path / "was here").exists, process, "the death of the reader")
    gate.open()
    done = finish(process)
    assert done.code == 1, done
    assert "ZeroDivisionError: of a reader that was repeated" in done.err
    assert "a.tar" in done.err
