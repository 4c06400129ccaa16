"""The worker process: it loads an executable and runs it for each message, or calls functions one after the other.

`python -m triune.hosting.child SOCKET LIFE NAME`: SOCKET and LIFE are file descriptors, of the channel and of a pipe
that nobody writes to. The pipe closes when the server ends, which ends this process. NAME only appears in lists of
processes.
"""

import contextlib
import faulthandler
import fcntl
import logging
import os
import pickle
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any, cast

from triune.core.errors import NoMemoryError, TriuneError
from triune.core.log_text import WorkerFormatter
from triune.core.runtime import Executable
from triune.hosting.channel import Channel
from triune.hosting.messages import from_error, from_signature
from triune.hosting.run_limit import OwnLimit, beyond

_log = logging.getLogger(__name__)


def main() -> None:
    """Handle messages until the channel closes."""
    descriptor, life = int(sys.argv[1]), int(sys.argv[2])
    # Ignore signals to the process group: the server handles them, finishes its requests, and then ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    faulthandler.enable()
    handler = logging.StreamHandler()
    handler.setFormatter(WorkerFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # Processes that the model starts must not inherit the channel, or it would stay open after this process has died.
    os.set_inheritable(descriptor, False)
    os.set_inheritable(life, False)
    _kill_with(life)
    threading.Thread(target=_end_with, args=(life,), name="life", daemon=True).start()
    channel = Channel(socket.socket(fileno=descriptor))
    # The server may end in the middle of a message: then end this process, too.
    with contextlib.suppress(EOFError, ConnectionError):
        serve(channel)
    # The executable is closed. Exit without calling destructors, since those of some libraries abort while threads run.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def serve(channel: Channel) -> None:
    """Call the function in each message, until one returns an executable; then run that for each message.

    Raises:
        EOFError, ConnectionError: the server has ended.
    """
    executable, limit = None, None
    while executable is None:
        message, tensors = channel.receive()
        is_executable: bool = message["is_executable"]
        _limit_cpu(message["cpu_seconds"])
        try:
            call: Callable[[], Any] = pickle.loads(tensors["call"].tobytes())
            result = call()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - foreign code: whatever it raises is the answer
            _tell(channel, error, "loading failed" if is_executable else "it failed")
            if is_executable:
                return
            continue
        if is_executable:
            executable = cast(Executable, result)
            run_bytes: int | None = message["run_bytes"]
            limit = OwnLimit(run_bytes) if run_bytes is not None else None
        else:
            del result
            channel.send({})
    ready = {
        "signature": from_signature(executable.signature),
        "unit": executable.unit.value,
        "precision": executable.precision,
        "report": executable.report,
    }
    channel.send(ready)
    try:
        while True:
            _answer(channel, executable, limit)
    finally:
        executable.close()


def _limit_cpu(seconds: int | None) -> None:
    """Have the system end this process after `seconds` of CPU time."""
    if seconds is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if soft == resource.RLIM_INFINITY or seconds < soft:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, hard))


def _answer(channel: Channel, executable: Executable, limit: OwnLimit | None) -> None:
    try:
        message, inputs = channel.receive()
    except MemoryError as error:
        _tell(channel, error if limit is None else beyond(limit.max_bytes), "a request does not fit")
        return
    try:
        outputs = executable.run(inputs, message["outputs"])
        channel.send({}, outputs)
    except (ConnectionError, KeyboardInterrupt):
        raise
    except (MemoryError, NoMemoryError) as error:
        what = error.what if isinstance(error, NoMemoryError) else ""
        _tell(channel, error if limit is None else beyond(limit.max_bytes, what), "a run failed")
    except BaseException as error:  # noqa: BLE001 - foreign code: whatever it raises is the answer
        _tell(channel, error, "a run failed")
    finally:
        if limit is not None:
            limit.give_back()


def _tell(channel: Channel, error: BaseException, what: str) -> None:
    if not isinstance(error, TriuneError):
        _log.exception("%s: %s", sys.argv[3] if len(sys.argv) > 3 else "worker process", what)
    channel.send({"error": from_error(error)})


def _kill_with(life: int) -> None:
    """Have Linux kill this process when the pipe closes. A thread could not notice this while a library computes and
    holds the GIL.
    """
    if sys.platform == "linux":
        fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(life, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC)


def _end_with(life: int) -> None:
    """Wait until the pipe closes, which happens however the server ends, and exit at once."""
    os.read(life, 1)
    os._exit(0)


if __name__ == "__main__":
    main()
