"""What a test changes in the processes of a run: first in PYTHONPATH, this is imported when Python starts.

JFTEST_ASKED: a file to which the echo engine appends one byte for each request, in whatever process.
JFTEST_REPEATED: a file that is not there; the first reader that gets to its second batch makes it when the first is
held at the gate and dies of SIGKILL, and the reader that Ray sends after it raises an error that nobody expects.
JFTEST_POISON: bytes; an image that holds them kills the process that decodes it, as a bug in a C library does.
JFTEST_BROKEN: type of a node's GPU; engines on such nodes do not start.
JFTEST_CORE: text of the error with which vLLM's core ends at its start.
JFTEST_IMPORT: a file that is not there; the first process that imports vLLM makes it and dies of SIGILL.
JFTEST_GATE: folder of a `tests.gate.Gate`; fragments with their answers, shards of an export or an index and parts of a
corpus wait at it until the test lets them pass.
"""

import functools
import importlib.abc
import importlib.util
import itertools
import os
import pathlib
import signal
import sys
import time


def _count_requests(module):
    answer, file = module.EchoEngine.answer, os.environ["JFTEST_ASKED"]

    async def counted(self, question):
        handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, b".")
        os.close(handle)
        return await answer(self, question)

    module.EchoEngine.answer = counted


def _die_of_poison(module):
    decode, poison = module.decode, os.environ["JFTEST_POISON"].encode()

    def deadly(data, *arguments):
        if poison in data:
            os.kill(os.getpid(), signal.SIGSEGV)
        return decode(data, *arguments)

    module.decode = deadly


def _die_then_raise(module):
    read_shard, file = module.read_shard, os.environ["JFTEST_REPEATED"]

    def failing(*arguments, **options):
        if pathlib.Path(file).exists():
            raise ZeroDivisionError("of a reader that was repeated")
        for number, batch in enumerate(read_shard(*arguments, **options)):
            if number:
                while not any(pathlib.Path(os.environ["JFTEST_GATE"]).glob("held-*")):
                    time.sleep(POLL_S)  # until the first batch has gone its way
                open(file, "x").close()
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

    module.read_shard = failing


def _start_nowhere_on(module):
    start_engine = module.start_engine

    def start(spec):
        import ray

        from pipeline.errors import EngineDead

        labels = ray.get_runtime_context().get_node_labels()
        if labels.get("ray.io/accelerator-type") == os.environ["JFTEST_BROKEN"]:
            raise EngineDead("the engine does not start: GPU has fallen off the bus")
        return start_engine(spec)

    module.start_engine = start


def _end_core(module):
    def end(self, *arguments, **options):
        raise RuntimeError(os.environ["JFTEST_CORE"])

    module.EngineCore.__init__ = end


def _end_import(_):
    file = pathlib.Path(os.environ["JFTEST_IMPORT"])
    if not file.exists():
        file.touch()
        os.kill(os.getpid(), signal.SIGILL)


POLL_S = 0.02
_numbers = itertools.count()


class _Held:
    """One piece of work, and whether it may pass the gate."""

    def __init__(self, state):
        self._folder = pathlib.Path(os.environ["JFTEST_GATE"])
        self._name = f"{os.getpid()}-{next(_numbers)}"
        self._mark = self._folder / f"{state}-{self._name}"
        self._mark.touch()

    def may_pass(self):
        if not (self._folder / "open").exists() and not any(map(_taken, sorted(self._folder.glob("pass-*")))):
            return False
        self.forget()
        return True

    def forget(self):
        self._mark.unlink(missing_ok=True)


def _taken(permit):
    try:
        permit.unlink()
    except FileNotFoundError:  # another process was faster
        return False
    return True


def _hold_answers(module):
    caption = module.Captioner.caption

    async def held_caption(self, batch, fragment_images, stage, *more):
        import asyncio

        asked = _Held("asked")

        async def held_stage(finished):
            held = _Held("held")
            asked.forget()
            while not held.may_pass():
                await asyncio.sleep(POLL_S)
            await stage(finished)

        try:
            await caption(self, batch, fragment_images, held_stage, *more)
        finally:
            asked.forget()

    module.Captioner.caption = held_caption


def _held_before(work):
    @functools.wraps(work)
    def held_work(*arguments, **options):
        held = _Held("held")
        while not held.may_pass():
            time.sleep(POLL_S)
        return work(*arguments, **options)

    return held_work


def _hold_shards(module):
    module.export_shard = _held_before(module.export_shard)


def _hold_index(module):
    module.commit_rows = _held_before(module.commit_rows)


def _hold_parts(module):
    module.Publisher.__call__ = _held_before(module.Publisher.__call__)


CHANGES = {
    "pipeline.stages.captioning": ("JFTEST_GATE", _hold_answers),
    "pipeline.export.export_shard": ("JFTEST_GATE", _hold_shards),
    "pipeline.corpus.publish_corpus": ("JFTEST_GATE", _hold_parts),
    "pipeline.ledger.index_files": ("JFTEST_GATE", _hold_index),
    "pipeline.engines.factory": ("JFTEST_BROKEN", _start_nowhere_on),
    "vllm.envs": ("JFTEST_IMPORT", _end_import),
    "vllm.v1.engine.core": ("JFTEST_CORE", _end_core),
    "pipeline.engines.echo": ("JFTEST_ASKED", _count_requests),
    "pipeline.stages.read_batches": ("JFTEST_REPEATED", _die_then_raise),
    "pipeline.images.decoding": ("JFTEST_POISON", _die_of_poison),
}


class _Changing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        variable, change = CHANGES.get(name, ("", None))
        if variable not in os.environ:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        execute = spec.loader.exec_module

        def execute_and_change(module):
            execute(module)
            change(module)

        spec.loader.exec_module = execute_and_change
        return spec


sys.meta_path.insert(0, _Changing())
