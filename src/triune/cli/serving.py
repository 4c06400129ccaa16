"""What the commands `serve` and `demo` share: serve until a stop signal, and print the models and the addresses."""

import asyncio
import logging
import os
import tempfile
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from triune import app
from triune.cli.log_writer import LogWriter
from triune.cli.output import escaped
from triune.core.scratch import sweep
from triune.core.threads import is_work_left
from triune.repository.model import ModelState
from triune.serving.server import Server
from triune.settings import Settings

_log = logging.getLogger(__name__)


def run(settings: Settings, console: Console, log: LogWriter) -> None:
    """Serve until a stop signal. Print the table of models and the addresses, formatted by `console`, through `log`."""

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
        # Exit at once if nobody reads the log, since the interpreter would wait for its writer; or if a load that was
        # cancelled still runs.
        if not log.is_read() or (code == 0 and is_work_left()):
            os._exit(code)


def tell(server: Server, addresses: app.Addresses, console: Console, log: LogWriter) -> None:
    """Print the models and the addresses through `log`. If that fails, log the error and go on."""
    try:
        text = _describe(console, server, addresses)
    except Exception:  # noqa: BLE001 - whatever fails here, models are served
        _log.exception("models are served, but what and where cannot be printed")
    else:
        log.say(text)


def _describe(console: Console, server: Server, addresses: app.Addresses) -> str:
    """The table of models, and the addresses."""
    with console.capture() as said:
        _print_models(console, server)
        for name, address in (("HTTP", addresses.http), ("gRPC", addresses.grpc), ("metrics", addresses.metrics)):
            if address:
                path = "/metrics" if name == "metrics" else ""
                text = address if name == "gRPC" else f"http://{address}{path}"
                hint = "  (open it in a browser for a page to try the models)" if name == "HTTP" else ""
                console.print(f"{name:8} {text}{hint if addresses.has_page else ''}", highlight=False, soft_wrap=True)
    return said.get()


def _print_models(console: Console, server: Server) -> None:
    table = Table("model", "version", "units", "largest error against cpu")
    others: list[str] = []
    for entry in server.last_index():
        if entry.state is not ModelState.READY or entry.version is None:
            version = f" version {entry.version}" if entry.version is not None else ""
            state = entry.state.value if entry.state else "not loaded: nobody asked for it"
            reason = f": {entry.reason}" if entry.reason else ""
            others.append(f"[yellow]{escaped(f'{entry.name}{version}')}[/] is {state}{escaped(reason)}")
            continue
        model = server.model(entry.name, entry.version)
        units = ", ".join(
            f"{unit.value} ({'emulated, ' if unit in model.emulated else ''}{precision})"
            for unit, precision in model.precisions.items()
        )
        errors = ", ".join(f"{unit.value} {each.largest:.2g}" for unit, each in model.statistics.verdicts.items())
        table.add_row(escaped(entry.name), str(entry.version), units, errors)
        if entry.reason:
            others.append(f"[yellow]{escaped(entry.name)} version {entry.version}[/] is {escaped(entry.reason)}")
    console.print(table)
    for line in others:
        console.print(line, soft_wrap=True)
