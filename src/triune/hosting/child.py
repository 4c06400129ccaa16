"""The worker process: loads one executable and runs it for each message, or does what it is told, one thing after
another. It ends when the server does.

`python -m triune.hosting.child SOCKET LIFE NAME`: descriptors of the channel and of a pipe that nobody
writes to; NAME is for whoever lists the processes.
"""

import contextlib
import faulthandler
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
    """Serve the channel until it ends."""
    descriptor, life = int(sys.argv[1]), int(sys.argv[2])
    # The server ends this process; whoever signals the whole group means the server, which drains first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    faulthandler.enable()
    handler = logging.StreamHandler()
    handler.setFormatter(WorkerFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # A process that the model starts must not keep the channel open after this one has died.
    os.set_inheritable(descriptor, False)
    os.set_inheritable(life, False)
    threading.Thread(target=_end_with, args=(life,), name="life", daemon=True).start()
    channel = Channel(socket.socket(fileno=descriptor))
    # The server is gone, perhaps in the middle of a message.
    with contextlib.suppress(EOFError, ConnectionError):
        serve(channel)
    # What was loaded is closed. Destructors of libraries whose threads still run, as Apple's interpreter's do, abort.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def serve(channel: Channel) -> None:
    """Call what each message says, until one gives an executable; then answer one message after another.

    Raises:
        EOFError, ConnectionError: the server is gone.
    """
    executable, limit = None, None
    while executable is None:
        message, tensors = channel.receive()
        is_executable: bool = message["is_executable"]
        _limit_cpu(message["cpu_seconds"])
        try:
            call: Callable[[], Any] = pickle.loads(tensors["call"].tobytes())
            result = call()
        except Exception as error:  # noqa: BLE001 - foreign code: whatever it raises is the answer
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
    }
    channel.send(ready)
    try:
        while True:
            _answer(channel, executable, limit)
    finally:
        executable.close()


def _limit_cpu(seconds: int | None) -> None:
    """Have the system end this process once it has computed for so long."""
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
    except ConnectionError:
        raise
    except (MemoryError, NoMemoryError) as error:
        what = error.what if isinstance(error, NoMemoryError) else ""
        _tell(channel, error if limit is None else beyond(limit.max_bytes, what), "a run failed")
    except Exception as error:  # noqa: BLE001 - foreign code: whatever it raises is the answer
        _tell(channel, error, "a run failed")
    finally:
        if limit is not None:
            limit.give_back()


def _tell(channel: Channel, error: Exception, what: str) -> None:
    if not isinstance(error, TriuneError):
        _log.exception("%s: %s", sys.argv[3] if len(sys.argv) > 3 else "worker process", what)
    channel.send({"error": from_error(error)})


def _end_with(life: int) -> None:
    """Wait for the end of the pipe, which the server's death brings too, and end at once, whatever is computing."""
    os.read(life, 1)
    os._exit(0)


if __name__ == "__main__":
    main()
