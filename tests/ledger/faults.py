"""Stores that die, lose answers, or lag, at a chosen call."""

import os
import signal


class Crash(BaseException):
    """A kill, in tests that stay in one process."""


def sigkill():
    os.kill(os.getpid(), signal.SIGKILL)


def crash():
    raise Crash


class Interposed:
    """A store that calls `before(n, name)` and `after(n, name)` around its n-th call, from 1."""

    def __init__(self, store, before=None, after=None):
        self.store, self.url, self.num_calls = store, store.url, 0
        self.before, self.after = before, after

    def _call(self, name, *arguments):
        self.num_calls += 1
        num = self.num_calls
        if self.before:
            self.before(num, name)
        result = getattr(self.store, name)(*arguments)
        if name == "list":
            result = iter(list(result))
        if self.after:
            self.after(num, name)
        return result

    def get(self, path):
        return self._call("get", path)

    def put(self, path, data):
        return self._call("put", path, data)

    def create(self, path, data):
        return self._call("create", path, data)

    def get_versioned(self, path):
        return self._call("get_versioned", path)

    def replace(self, path, data, version):
        return self._call("replace", path, data, version)

    def list(self, folder):
        return self._call("list", folder)

    def delete(self, paths):
        return self._call("delete", paths)

    def exists(self, path):
        return self._call("exists", path)


def dying(store, num, when, die):
    """A store whose process dies at its `num`-th call, `when` is before or after."""

    def at(call, _):
        if call == num:
            die()

    return Interposed(store, **{when: at})


def losing_answers(store, err, times=1, name="create"):
    """A store whose first creations arrive, and whose answers do not."""
    left = [times]

    def lose(_, called):
        if called == name and left[0]:
            left[0] -= 1
            raise err

    return Interposed(store, after=lose)
