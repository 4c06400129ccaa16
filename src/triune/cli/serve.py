"""`triune serve`: serve a model repository."""

import asyncio
import logging
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table

from triune import app
from triune.frontends.kserve.http_limits import Limits
from triune.repository.model import ModelState
from triune.repository.repository import ControlMode
from triune.serving.server import Server


def boolean(text: str) -> bool:
    """Triton's boolean flag values: true or false, 1 or 0."""
    if text.lower() in ("true", "1"):
        return True
    if text.lower() in ("false", "0"):
        return False
    raise typer.BadParameter(f"{text!r} is neither true nor false")


def serve(
    repository: Annotated[
        list[Path], typer.Option("--repository", "--model-repository", help="A folder of models; may be given again.")
    ],
    host: Annotated[str, typer.Option("--host", "--http-address", help="The address to listen on.")] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="KServe over HTTP.")] = 8000,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="KServe over gRPC.")] = 8001,
    metrics_port: Annotated[int, typer.Option(min=0, max=65535, help="Prometheus metrics.")] = 8002,
    allow_http: Annotated[bool, typer.Option(parser=boolean, metavar="BOOLEAN", help="Serve HTTP.")] = True,
    allow_grpc: Annotated[bool, typer.Option(parser=boolean, metavar="BOOLEAN", help="Serve gRPC.")] = True,
    allow_metrics: Annotated[bool, typer.Option(parser=boolean, metavar="BOOLEAN", help="Serve metrics.")] = True,
    model_control_mode: Annotated[
        ControlMode, typer.Option(help="Whether models may come and go: none, explicit (by request) or poll.")
    ] = ControlMode.NONE,
    load_model: Annotated[
        list[str] | None, typer.Option(help="With explicit control, a model to load at the start; * is all.")
    ] = None,
    repository_poll_secs: Annotated[float, typer.Option(min=0.1, help="With poll control, how often to look.")] = 15.0,
    strict_readiness: Annotated[
        bool, typer.Option(parser=boolean, metavar="BOOLEAN", help="Ready only while every model is.")
    ] = True,
    exit_on_error: Annotated[
        bool, typer.Option(parser=boolean, metavar="BOOLEAN", help="Exit if a model fails to load at the start.")
    ] = False,
    exit_timeout_secs: Annotated[
        float, typer.Option(min=0, help="How long requests under way may take at the end.")
    ] = 30.0,
    max_request_bytes: Annotated[
        int, typer.Option("--max-request-bytes", "--http-max-input-size", min=1, help="Largest request taken.")
    ] = app.DEFAULT_LIMITS.request_bytes,
    max_json_bytes: Annotated[
        int, typer.Option(min=1, help="How much of a request may be JSON.")
    ] = app.DEFAULT_LIMITS.json_bytes,
    max_decompression_ratio: Annotated[
        int, typer.Option(min=1, help="How many times its size a body of 8 MiB or more may become when decompressed.")
    ] = app.DEFAULT_LIMITS.decompression_ratio,
    max_inflight_bytes: Annotated[
        int | None,
        typer.Option(min=1 << 20, help="Memory of all requests under way [default: a quarter of the machine's]."),
    ] = None,
    max_connections: Annotated[
        int, typer.Option(min=1, help="Connections of the HTTP port, and of the metrics port.")
    ] = app.DEFAULT_LIMITS.connections,
    receive_timeout_secs: Annotated[
        float, typer.Option(min=0.1, help="How long a client may send nothing of a request that it has begun.")
    ] = app.DEFAULT_LIMITS.receive_seconds,
    send_timeout_secs: Annotated[
        float, typer.Option(min=0.1, help="How long a client may take nothing of its answer.")
    ] = app.DEFAULT_LIMITS.send_seconds,
    idle_timeout_secs: Annotated[
        float, typer.Option(min=0.1, help="How long a connection may stay without a request.")
    ] = app.DEFAULT_LIMITS.idle_seconds,
    name: Annotated[str, typer.Option("--id", help="What the server calls itself in its metadata.")] = "triune",
    log_verbose: Annotated[int, typer.Option(min=0, help="0 for what matters, 1 or more for everything.")] = 0,
) -> None:
    """Serve a model repository by Triton's protocols. Ctrl-C finishes what is under way; twice stops at once."""
    options = app.Options(
        repositories=repository,
        host=host,
        http_port=http_port if allow_http else None,
        grpc_port=grpc_port if allow_grpc else None,
        metrics_port=metrics_port if allow_metrics else None,
        control_mode=model_control_mode,
        startup_models=load_model or (),
        poll_seconds=repository_poll_secs,
        is_ready_strict=strict_readiness,
        is_exiting_on_error=exit_on_error,
        exit_timeout_seconds=exit_timeout_secs,
        limits=Limits(
            request_bytes=max_request_bytes,
            json_bytes=max_json_bytes,
            decompression_ratio=max_decompression_ratio,
            connections=max_connections,
            receive_seconds=receive_timeout_secs,
            send_seconds=send_timeout_secs,
            idle_seconds=idle_timeout_secs,
        ),
        max_inflight_bytes=max_inflight_bytes,
        name=name,
    )
    run(options, log_verbose)


def run(options: app.Options, log_verbose: int = 0) -> None:
    """Serve until told to stop, saying on standard error what is served and where."""
    console = Console(stderr=True)
    level = logging.DEBUG if log_verbose else logging.INFO
    if console.is_terminal:
        logging.basicConfig(level=level, format="%(message)s", handlers=[RichHandler(console=console, show_path=False)])
    else:
        logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s")

    def on_ready(server: Server, addresses: app.Addresses) -> None:
        _print_models(console, server)
        for name, address in (("HTTP", addresses.http), ("gRPC", addresses.grpc), ("metrics", addresses.metrics)):
            if address:
                text = address if name == "gRPC" else f"http://{address}" + ("/metrics" if name == "metrics" else "")
                console.print(f"{name:8} {text}", highlight=False)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(app.serve(options, on_ready))


def _print_models(console: Console, server: Server) -> None:
    table = Table("model", "version", "units", "largest error against cpu")
    others: list[str] = []
    for entry in server.index():
        if entry.state is not ModelState.READY or entry.version is None:
            version = f" version {entry.version}" if entry.version is not None else ""
            state = entry.state.value if entry.state else "not loaded: nobody asked for it"
            reason = f": {entry.reason}" if entry.reason else ""
            others.append(f"[yellow]{escape(f'{entry.name}{version}')}[/] is {state}{escape(reason)}")
            continue
        model = server.model(entry.name, entry.version)
        workers = [worker.executable for worker in model.dispatcher.workers]
        labels = dict.fromkeys(model.emulated, "emulated, ")
        units = ", ".join(
            dict.fromkeys(f"{each.unit.value} ({labels.get(each.unit, '')}{each.precision})" for each in workers)
        )
        errors = ", ".join(f"{unit.value} {error:.2g}" for unit, error in model.statistics.unit_errors.items())
        table.add_row(escape(entry.name), str(entry.version), units, errors)
        if entry.reason:
            others.append(f"[yellow]{escape(entry.name)} version {entry.version}[/] is {escape(entry.reason)}")
    console.print(table)
    for line in others:
        console.print(line, soft_wrap=True)
