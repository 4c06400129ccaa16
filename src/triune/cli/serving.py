"""What the commands `serve` and `demo` share: serve until a stop signal, and print the models and the addresses."""

import asyncio
import atexit
import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, TypeAlias

import uvloop
from rich.console import Console
from rich.table import Table

from triune import app
from triune.cli.log_writer import LogWriter
from triune.cli.output import escaped
from triune.core.scratch import sweep
from triune.core.threads import is_work_left
from triune.hosting import leave_nothing
from triune.repository.model import IndexEntry, ModelState
from triune.scheduling.models import LoadedVersion
from triune.serving.server import Server
from triune.settings import Settings

_log = logging.getLogger(__name__)

_Model: TypeAlias = tuple[IndexEntry, LoadedVersion | None]
"""An entry of the repository index, and its loaded version if that is ready."""


def run(settings: Settings, console: Console, log: LogWriter) -> NoReturn:
    """Serve until a stop signal, and end the process. Print the table of models and the addresses, formatted by
    `console`, through `log`.

    Raises:
        TriuneError, OSError: the server cannot start.
    """

    def on_ready(server: Server, addresses: app.Addresses) -> None:
        tell(server, addresses, console, log)

    # Print a table once now: Rich imports modules at its first use, and later clients may have taken all file
    # descriptors.
    with console.capture():
        console.print(Table("model", title=":warning: [yellow]...[/]"))

    # Remove temporary files of earlier servers that were killed.
    sweep(Path(tempfile.gettempdir()))

    code = 1
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(app.serve(settings, on_ready))
        code = 0
    finally:
        # Exit without the interpreter's own ending, which would wait for threads, in two cases: nobody reads the log,
        # so that its writer never ends, or a cancelled load still runs.
        if not log.is_read() or (code == 0 and is_work_left()):
            leave_nothing()
            os._exit(code)
    _exit()


def _exit() -> NoReturn:
    """End the process as the interpreter does, but leave its modules and the libraries as they are: the system frees
    them at once, where the interpreter takes half a second, and a library that still has threads may crash.
    """
    # Call the exit functions, in which libraries remove their temporary files.
    atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]
    leave_nothing()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)


def tell(server: Server, addresses: app.Addresses, console: Console, log: LogWriter) -> None:
    """Print the models and the addresses through `log`. If that fails, log the error and go on.

    The table is made in the thread of `log`, since making it for many models takes long.
    """
    models = [(each, _ready(server, each)) for each in server.last_index()]

    def describe() -> str:
        try:
            return _describe(console, models, addresses)
        except Exception:  # noqa: BLE001 - whatever fails here, models are served
            _log.exception("models are served, but what and where cannot be printed")
            return ""

    log.say(describe)


def _ready(server: Server, entry: IndexEntry) -> LoadedVersion | None:
    """The loaded version of an index entry, if it is ready."""
    is_ready = entry.state is ModelState.READY and entry.version is not None
    return server.model(entry.name, entry.version) if is_ready else None


def _describe(console: Console, models: Sequence[_Model], addresses: app.Addresses) -> str:
    """The table of models, and the addresses."""
    with console.capture() as said:
        _print_models(console, models)
        for name, address in (("HTTP", addresses.http), ("gRPC", addresses.grpc), ("metrics", addresses.metrics)):
            if address:
                path = "/metrics" if name == "metrics" else ""
                text = address if name == "gRPC" else f"http://{address}{path}"
                hint = "  (open it in a browser for a page to try the models)" if name == "HTTP" else ""
                console.print(f"{name:8} {text}{hint if addresses.has_page else ''}", highlight=False, soft_wrap=True)
    return said.get()


def _print_models(console: Console, models: Sequence[_Model]) -> None:
    table = Table("model", "version", "units", "largest error against cpu")
    others: list[str] = []
    for entry, model in models:
        if model is None:
            version = f" version {entry.version}" if entry.version is not None else ""
            state = entry.state.value if entry.state else "not loaded: nobody asked for it"
            reason = f": {entry.reason}" if entry.reason else ""
            others.append(f"[yellow]{escaped(f'{entry.name}{version}')}[/] is {state}{escaped(reason)}")
            continue
        units = ", ".join(
            f"{unit.value} ({'emulated, ' if unit in model.emulated else ''}{precision})"
            for unit, precision in model.precisions.items()
        )
        # Copy the dict, since the event loop changes it.
        verdicts = dict(model.statistics.verdicts)
        errors = ", ".join(f"{unit.value} {each.largest:.2g}" for unit, each in verdicts.items())
        table.add_row(escaped(entry.name), str(entry.version), units, errors)
        if entry.reason:
            others.append(f"[yellow]{escaped(entry.name)} version {entry.version}[/] is {escaped(entry.reason)}")
    console.print(table)
    for line in others:
        console.print(line, soft_wrap=True)
