"""A gate in the processes of a run: finished work waits at it until the test lets it pass.

A test that kills a run in the middle must not race it: on an idle machine the run would be over before the kill. With
a gate the run makes exactly as much progress as the test allows and then waits. Fragments wait with their answers in
hand, before they are staged; shards of an export or an index and parts of a corpus wait before they are written.

`tests/hooks/sitecustomize.py` holds the work in the run's processes; both sides share a folder:

    pass-N      a permit, taken by the work that removes it
    asked-N     a batch that is with its engine; N begins with the id of its process
    held-N      work that waits for a permit
    open        all work passes
"""

import itertools
from pathlib import Path

import psutil

PROJECT = Path(__file__).parents[1]
HOOKS = {"PYTHONPATH": f"{PROJECT / 'tests' / 'hooks'}:{PROJECT}"}
"""Environment with which `tests/hooks` are imported by the processes of a run."""


class Gate:
    """A gate that is closed until the test lets something pass."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._numbers = itertools.count()
        self.environment = {**HOOKS, "JFTEST_GATE": str(folder)}
        """For the run, and for the nodes of a cluster on which it works."""

    def let(self, number: int) -> None:
        """Let so much more work pass: what is held now, or what comes."""
        for _ in range(number):
            (self._folder / f"pass-{next(self._numbers)}").touch()

    def open(self) -> None:
        (self._folder / "open").touch()

    def close(self) -> None:
        """Hold whatever comes from now on."""
        (self._folder / "open").unlink()

    @property
    def permits(self) -> int:
        """Number of permits that nothing has taken yet."""
        return len(list(self._folder.glob("pass-*")))

    def asked(self) -> int:
        """Number of batches that are with the engine of a live process."""
        return len(self._of_the_living("asked"))

    def held(self) -> int:
        """Number of pieces of work that wait in live processes."""
        return len(self._of_the_living("held"))

    def holders(self) -> set[int]:
        """Ids of the live processes whose work waits."""
        return set(self._of_the_living("held"))

    def _of_the_living(self, state: str) -> list[int]:
        pids = [int(path.name.split("-")[1]) for path in self._folder.glob(f"{state}-*")]
        return [pid for pid in pids if psutil.pid_exists(pid)]
