"""What a test changes in the processes of a run: first in PYTHONPATH, this is imported when Python starts.

JFTEST_ASKED: a file to which the echo engine appends one byte for each request, in whatever process.
JFTEST_REPEATED: a file that is not there; the first reader that gets to its second batch makes it and dies of
SIGKILL, and the reader that Ray sends after it raises an error that nobody expects.
JFTEST_POISON: bytes; an image that holds them kills the process that decodes it, as a bug in a C library does.
"""

import importlib.abc
import importlib.util
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
                time.sleep(5)  # until the first batch has gone its way
                open(file, "x").close()
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

    module.read_shard = failing


CHANGES = {
    "pipeline.engines.echo": ("JFTEST_ASKED", _count_requests),
    "pipeline.stages.read_batches": ("JFTEST_REPEATED", _die_then_raise),
    "pipeline.images.decode": ("JFTEST_POISON", _die_of_poison),
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
