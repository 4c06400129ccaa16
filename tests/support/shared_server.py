"""One server for all test processes that pytest-xdist starts in a test run."""

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
    """Hold the file lock `path`, which only one process can hold at a time."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def shared(folder: Path, start: Callable[[], AbstractContextManager[Served]]) -> Iterator[Served]:
    """A server that all test processes share. The first process that needs it starts it, and it stops when no process
    uses it any more.

    At its end, the process that started the server waits for the others. Only this process can read the server's
    output.

    Args:
        folder: the folder through which the processes find the server. It must be the same for all processes, and used
            for no other server.
        start: starts the server.
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
            # The process ended without removing its file.
            user.unlink()
        else:
            return True
    return False
