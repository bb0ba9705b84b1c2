"""The arithmetic of `peers`: its order, its medians, what a kill loses, and whose CPU a program's is."""

import json
import subprocess
import sys
import textwrap
import time
from argparse import Namespace
from pathlib import Path

import pytest

from tests.benchmarks import peers
from tests.benchmarks.peers import Measurement, chosen, measure_all, measurements, medians
from tests.benchmarks.peers_programs import PROGRAMS, Program
from tests.benchmarks.process_tree import ProcessTree

BURN = """
import os, sys, time
def burn(seconds):
    while time.process_time() < seconds:
        pass
burn(0.2)
if os.fork() == 0:
    os.setsid()
    burn(0.2)
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
os.wait()
"""
"""Uses 0.2 s of CPU, and as much in a child of another session, which leaves a child of its own to init."""

CAPTIONS = """
import sys
from pathlib import Path
import time
output, made = map(Path, sys.argv[1:])
output.mkdir(exist_ok=True)
for number in range(20):
    file = output / str(number)
    if {resumes} and file.exists():
        continue
    with made.open("a") as count:
        count.write(".")
    if number % 3 or {whole}:
        file.write_text("x")
    time.sleep(0.05 if number > 9 else 0)
"""
"""Captions 20 images, of which every third is only made and not kept if it is not `whole`."""


def started(tmp_path: Path, code: str) -> ProcessTree:
    with (tmp_path / "log").open("w") as log:
        return ProcessTree([sys.executable, "-c", code], log)


def test_the_cpu_of_a_program_is_that_of_all_its_processes(tmp_path):
    with started(tmp_path, BURN) as tree:
        assert tree.process.wait(60) == 0
        if not tree.exact:
            pytest.skip("no control group can be made here: the CPU is sampled")
        assert tree.cpu_s() >= 0.4


def test_the_end_of_a_program_is_that_of_processes_it_left_to_others(tmp_path):
    with started(tmp_path, BURN) as tree:
        tree.process.wait(60)
        if not tree.exact:
            pytest.skip("no control group can be made here")
        left = tree._pids()
        assert len(left) == 1
    assert not Path("/proc", str(*left)).exists() or "(zombie)" in Path("/proc", str(*left), "status").read_text()


def test_a_load_ends_with_its_benchmark():
    code = """
        import time
        from tests.benchmarks.process_tree import busy
        import psutil
        with busy(2):
            print(*[child.pid for child in psutil.Process().children()], flush=True)
            import os; os._exit(1)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    pids = done.stdout.split()
    assert len(pids) == 2, done.stderr
    deadline = time.monotonic() + 60
    while any(Path("/proc", pid).exists() for pid in pids):
        assert time.monotonic() < deadline, "a program that computes without end outlived the benchmark"
        time.sleep(0.05)


def test_each_program_is_at_each_place_of_the_order_once():
    args = Namespace(rounds=3, kills=1)
    planned = measurements(args, ["a", "b", "c"])
    assert [
        "".join(item.name for item in planned if item.round == number and not item.kill) for number in range(3)
    ] == [
        "abc",
        "bca",
        "cab",
    ]
    assert [item.name for item in planned if item.kill] == ["a", "b", "c"]


def test_an_unknown_program_is_refused():
    assert chosen("daft,joyfleet") == ["daft", "joyfleet"]
    with pytest.raises(SystemExit, match=r"--only daft,dart: unknown dart; allowed: joyfleet, .*captionflow"):
        chosen("daft,dart")


def row(name: str, number: int, rate: float, load: int = 0) -> dict:
    times = dict.fromkeys(("cpu_ms", "first_caption_s", "last_caption_s", "all_s"), rate)
    return {"program": name, "round": number, "load": load, "captions_per_s": rate, **times}


def test_ratios_are_of_the_same_round_and_load():
    rows = [
        row("joyfleet", 0, 50),
        row("daft", 0, 40),
        row("daft", 1, 20),
        row("joyfleet", 1, 50),
        row("joyfleet", 0, 30, load=2),
        row("daft", 0, 60, load=2),
        {"program": "daft", "round": 2, "load": 0, "error": "died"},
        {"program": "daft", "round": 0, "load": 0, "lost": 3},
    ]
    lines = {(line["program"], line["load"]): line for line in medians(rows)}
    assert lines["Daft", 0]["captions_per_s"] == "30 (20-40)"
    assert lines["Daft", 0]["joyfleet to it"] == "1.88 (1.25-2.5)"
    assert lines["Daft", 2]["joyfleet to it"] == "0.5"
    assert "joyfleet to it" not in lines["JoyFleet", 0]
    assert "joyfleet-seeded to it" not in lines["Daft", 0]


def names(output: Path) -> list[str]:
    return [file.name for file in output.iterdir()]


def toy(monkeypatch: pytest.MonkeyPatch, *, resumes: bool, whole: bool) -> None:
    """Put a program that captions nothing in the place of Daft."""
    code = CAPTIONS.format(resumes=resumes, whole=whole)
    monkeypatch.setitem(PROGRAMS, "daft", Program(title="toy", run=print, kept=names, expected_s=1))

    def start(_: str, __: Path, output: Path) -> ProcessTree:
        with output.with_suffix(".log").open("a") as log:
            return ProcessTree([sys.executable, "-c", code, str(output), str(peers.made_file(output))], log)

    monkeypatch.setattr(peers, "started", start)


def test_what_a_kill_loses_and_a_restart_makes_again_is_counted(tmp_path, monkeypatch):
    toy(monkeypatch, resumes=True, whole=False)
    result = peers.killed("daft", tmp_path, tmp_path / "output", 20)
    assert result["made"] >= 10
    assert result["lost"] == len(range(0, result["made"], 3))
    assert result["made_by_restart"] == 20 - result["made"] + result["lost"]
    assert result["restart"] == "goes on"


def test_a_restart_that_makes_everything_again_starts_over(tmp_path, monkeypatch):
    toy(monkeypatch, resumes=False, whole=True)
    result = peers.killed("daft", tmp_path, tmp_path / "output", 20)
    assert (result["lost"], result["made_by_restart"], result["restart"]) == (0, 20, "starts over")
    assert (result["images_at_end"], result["rows_at_end"]) == (20, 20)


def test_a_program_that_ends_without_all_captions_failed(tmp_path, monkeypatch):
    toy(monkeypatch, resumes=True, whole=False)
    args = Namespace(load=0, images=20)
    result = peers.measured(args, Measurement("daft", 0), tmp_path, tmp_path)
    assert "daft ended with captions of 13 images of 20" in result["error"]
    assert medians([result]) == []


def test_a_stopped_benchmark_leaves_its_rows(tmp_path, monkeypatch):
    defaults = {"images": 20, "rounds": 1, "kills": 0, "load": 0, "minutes": 0, "append": 0}
    args = Namespace(**defaults, json=tmp_path / "rows.json")
    results = iter([row("joyfleet", 0, 50)])
    monkeypatch.setattr(peers, "drawn", lambda folder, _: folder)
    monkeypatch.setattr(peers, "measured", lambda *_: next(results))
    with pytest.raises(StopIteration):
        measure_all(args, ["joyfleet", "daft"])
    assert json.loads(args.json.read_text())["rows"] == [row("joyfleet", 0, 50)]
    args.append = 1
    monkeypatch.setattr(peers, "measured", lambda *_: row("daft", 0, 40))
    assert measure_all(args, ["daft"]) == [row("joyfleet", 0, 50), row("daft", 0, 40)]


def test_nothing_begins_that_would_not_end_in_time(tmp_path, monkeypatch, capsys):
    defaults = {"images": 20, "rounds": 1, "kills": 0, "load": 0, "minutes": 1, "append": 0}
    args = Namespace(**defaults, json=tmp_path / "rows.json")
    monkeypatch.setattr(peers, "drawn", lambda folder, _: folder)
    monkeypatch.setattr(peers, "measured", lambda _, item, *__: row(item.name, 0, 40))
    assert [item["program"] for item in measure_all(args, ["ray-data-llm", "transformers"])] == ["transformers"]
    assert "name='ray-data-llm'" in capsys.readouterr().out
