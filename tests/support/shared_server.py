"""One server for all processes of a run of tests, which pytest-xdist starts."""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from support.process import Served

_ADDRESSES = "addresses.json"
_USERS = "users"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock `path`, which one process at a time has."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def shared(folder: Path, start: Callable[[], AbstractContextManager[Served]]) -> Iterator[Served]:
    """A server that the first process starts which asks for it, and that stops when none uses it any more.

    The process that started it waits at its end for the others. These have no lines of what the server writes.

    Args:
        folder: where the processes find it: the same folder for all, which no other server has.
        start: starts it.
    """
    (folder / _USERS).mkdir(parents=True, exist_ok=True)
    lock, addresses, mine = folder / "lock", folder / _ADDRESSES, folder / _USERS / str(os.getpid())
    with contextlib.ExitStack() as own:
        with locked(lock):
            if addresses.exists():
                given = json.loads(addresses.read_text())
                served = Served(None, given["http"], given["grpc"], given["metrics"], [], Path(given["repository"]))
            else:
                served = own.enter_context(start())
                given = {name: str(getattr(served, name)) for name in ("http", "grpc", "metrics", "repository")}
                addresses.write_text(json.dumps(given))
            mine.touch()
        try:
            yield served
        finally:
            mine.unlink()
            while served.process is not None:
                with locked(lock):
                    if not _has_users(folder):
                        addresses.unlink()
                        break
                time.sleep(0.2)


def _has_users(folder: Path) -> bool:
    for user in (folder / _USERS).iterdir():
        try:
            os.kill(int(user.name), 0)
        except ProcessLookupError:
            # It ended without saying so.
            user.unlink()
        else:
            return True
    return False
