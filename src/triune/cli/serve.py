"""`triune serve`: serve a model repository."""

import asyncio
import logging
import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console
from rich.table import Table

from triune import app
from triune.cli.api_keys import read_keys
from triune.cli.cache_config import cache_bytes
from triune.cli.log_writer import LogWriter
from triune.cli.logs import LogFormat, LogOptions, set_up_logs
from triune.cli.output import escaped
from triune.config.limits import DEFAULT_LIMITS as DEFAULT_MODEL_LIMITS
from triune.config.limits import ModelLimits
from triune.config.policy import QueueLimits
from triune.config.settings import Completion, ModelSettings
from triune.core.errors import InvalidArgumentError
from triune.core.scratch import sweep
from triune.core.threads import is_work_left
from triune.frontends.access import Access
from triune.frontends.kserve.grpc.server import ChannelOptions, Compression
from triune.frontends.kserve.limits import Limits
from triune.frontends.metrics.options import MetricsOptions
from triune.repository.model import ModelState
from triune.repository.settings import ControlMode, RepositorySettings
from triune.serving.server import Server
from triune.settings import DEFAULT_LIMITS, Memory, Ports, Settings

_log = logging.getLogger(__name__)


def serve(
    context: typer.Context,
    repository: Annotated[
        list[Path],
        typer.Option(
            "--repository", "--model-repository", "--model-store", help="A folder of models; may be given again."
        ),
    ],
    host: Annotated[
        str, typer.Option(help="The address to listen on, where a port has none of its own.")
    ] = "127.0.0.1",
    http_address: Annotated[str | None, typer.Option(help="The address of HTTP.")] = None,
    grpc_address: Annotated[str | None, typer.Option(help="The address of gRPC.")] = None,
    metrics_address: Annotated[str | None, typer.Option(help="The address of the metrics; HTTP's if left out.")] = None,
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="KServe over HTTP.")] = 8000,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="KServe over gRPC.")] = 8001,
    metrics_port: Annotated[int, typer.Option(min=0, max=65535, help="Prometheus metrics.")] = 8002,
    reuse_http_port: Annotated[bool, typer.Option(help="Servers that all say so may share a port.")] = False,
    reuse_grpc_port: Annotated[bool, typer.Option(help="Servers that all say so may share a port.")] = False,
    allow_http: Annotated[bool, typer.Option(help="Serve HTTP.")] = True,
    allow_grpc: Annotated[bool, typer.Option(help="Serve gRPC.")] = True,
    allow_metrics: Annotated[bool, typer.Option(help="Serve metrics.")] = True,
    allow_cpu_metrics: Annotated[bool, typer.Option(help="The metrics nv_cpu_*.")] = True,
    metrics_interval_ms: Annotated[float, typer.Option(min=0, help="How old a reading of the machine may be.")] = 2000,
    metrics_config: Annotated[
        list[str] | None, typer.Option(help="SETTING=VALUE: summary_latencies=true and others.")
    ] = None,
    model_control_mode: Annotated[
        ControlMode, typer.Option(help="Whether models may come and go: none, explicit (by request) or poll.")
    ] = ControlMode.NONE,
    load_model: Annotated[
        list[str] | None, typer.Option(help="With explicit control, a model to load at the start; * is all.")
    ] = None,
    repository_poll_secs: Annotated[float, typer.Option(min=0.1, help="With poll control, how often to look.")] = 15.0,
    model_load_thread_count: Annotated[int, typer.Option(min=1, max=1024, help="Models that load at once.")] = 4,
    model_load_retry_count: Annotated[int, typer.Option(min=0, help="How often a failed load is tried again.")] = 0,
    load_timeout_secs: Annotated[
        float, typer.Option(min=0.001, max=1e9, help="How long a model may take to load that does not say it itself.")
    ] = DEFAULT_MODEL_LIMITS.load_seconds,
    run_timeout_secs: Annotated[
        float, typer.Option(min=0.001, max=1e9, help="How long a run may take of a model that does not say it itself.")
    ] = DEFAULT_MODEL_LIMITS.run_seconds,
    conversion_memory_bytes: Annotated[
        int | None, typer.Option(min=1 << 20, help="Memory of a conversion [default: three quarters of the machine's].")
    ] = None,
    run_memory_bytes: Annotated[
        int | None,
        typer.Option(min=1 << 20, help="Memory of a run [default: what all requests may take, 1 GiB at least]."),
    ] = None,
    model_config_name: Annotated[
        str, typer.Option(help="Models that have configs/NAME.pbtxt take it for their config.pbtxt.")
    ] = "",
    disable_auto_complete_config: Annotated[
        bool, typer.Option("--disable-auto-complete-config", help="A config.pbtxt must be there, and say everything.")
    ] = False,
    backend_config: Annotated[
        list[str] | None, typer.Option(help="BACKEND,default-max-batch-size=N; BACKEND may be * or left out.")
    ] = None,
    cache_config: Annotated[
        list[str] | None, typer.Option(help="local,size=BYTES: keep answers of models that enable response_cache.")
    ] = None,
    response_cache_byte_size: Annotated[
        int | None, typer.Option(min=0, help="Older form of --cache-config=local,size=BYTES.")
    ] = None,
    strict_readiness: Annotated[bool, typer.Option(help="Ready only while every model is.")] = True,
    exit_on_error: Annotated[
        bool | None,
        typer.Option(help="Exit if a model, or the repository, fails at the start [default: the repository only]."),
    ] = None,
    exit_timeout_secs: Annotated[
        float, typer.Option(min=0, help="How long requests under way may take at the end.")
    ] = 30.0,
    max_request_bytes: Annotated[
        int, typer.Option("--max-request-bytes", "--http-max-input-size", min=1, help="Largest request taken.")
    ] = DEFAULT_LIMITS.request_bytes,
    max_grpc_request_bytes: Annotated[
        int, typer.Option(min=1, help="Largest request taken over gRPC, where that is less.")
    ] = DEFAULT_LIMITS.grpc_request_bytes,
    max_json_bytes: Annotated[
        int, typer.Option(min=1, help="How much of a request may be JSON.")
    ] = DEFAULT_LIMITS.json_bytes,
    max_decompression_ratio: Annotated[
        int, typer.Option(min=1, help="How many times its size a body of 8 MiB or more may become when decompressed.")
    ] = DEFAULT_LIMITS.decompression_ratio,
    max_inflight_bytes: Annotated[
        int | None,
        typer.Option(min=1 << 20, help="Memory of all requests under way [default: a quarter of the machine's]."),
    ] = None,
    max_connections: Annotated[
        int, typer.Option(min=1, help="Connections of each port; over gRPC also calls.")
    ] = DEFAULT_LIMITS.connections,
    max_streams: Annotated[
        int, typer.Option(min=1, help="Calls that one gRPC connection may have at once.")
    ] = DEFAULT_LIMITS.streams,
    max_queue_size: Annotated[
        int, typer.Option(min=0, help="Requests that may wait for a model whose config does not say it; 0 is any.")
    ] = DEFAULT_MODEL_LIMITS.queue.max_requests,
    max_queue_secs: Annotated[
        float, typer.Option(min=0, help="How long the first and the last of more than 64 may wait; 0 is for ever.")
    ] = DEFAULT_MODEL_LIMITS.queue.max_seconds,
    max_header_bytes: Annotated[
        int, typer.Option(min=1024, help="Size of a request's line and headers.")
    ] = DEFAULT_LIMITS.head_bytes,
    max_chunks: Annotated[
        int, typer.Option(min=1, help="How many chunks a request may come in.")
    ] = DEFAULT_LIMITS.chunks,
    receive_timeout_secs: Annotated[
        float, typer.Option(min=0.1, help="How long a client may send nothing of a request that it has begun.")
    ] = DEFAULT_LIMITS.receive_seconds,
    send_timeout_secs: Annotated[
        float, typer.Option(min=0.1, help="How long a client may take nothing of its answer.")
    ] = DEFAULT_LIMITS.send_seconds,
    idle_timeout_secs: Annotated[
        float, typer.Option(min=0.1, help="How long a connection may stay without a request.")
    ] = DEFAULT_LIMITS.idle_seconds,
    http_thread_count: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Threads that decode, encode and compress what is large.")
    ] = None,
    grpc_infer_response_compression_level: Annotated[
        Compression, typer.Option(case_sensitive=False, help="How answers are compressed, where clients take it.")
    ] = Compression.NONE,
    grpc_keepalive_time: Annotated[
        int | None, typer.Option(min=1, help="When a silent client is pinged, in milliseconds.")
    ] = None,
    grpc_keepalive_timeout: Annotated[
        int | None, typer.Option(min=1, help="Time for its answer, in milliseconds.")
    ] = None,
    grpc_keepalive_permit_without_calls: Annotated[bool | None, typer.Option(help="Ping without calls, too.")] = None,
    grpc_http2_max_pings_without_data: Annotated[int | None, typer.Option(min=0, help="Pings without data.")] = None,
    grpc_http2_min_recv_ping_interval_without_data: Annotated[
        int | None, typer.Option(min=0, help="How soon a client may ping again, in milliseconds.")
    ] = None,
    grpc_http2_max_ping_strikes: Annotated[int | None, typer.Option(min=0, help="Bad pings; 0 is any.")] = None,
    grpc_max_connection_age: Annotated[
        int | None, typer.Option(min=1, help="Life of a connection, in milliseconds.")
    ] = None,
    grpc_max_connection_age_grace: Annotated[
        int | None, typer.Option(min=0, help="Its calls' grace, in milliseconds.")
    ] = None,
    api_keys: Annotated[
        list[str] | None,
        typer.Option("--api-key", help="A key that callers have to send; may be given again. TRIUNE_API_KEY hides it."),
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="A file of such keys, one a line, which no list of processes shows.")
    ] = None,
    http_restricted_api: Annotated[
        list[str] | None, typer.Option(help="APIS:HEADER=VALUE: a header that these APIs ask for over HTTP.")
    ] = None,
    grpc_restricted_protocol: Annotated[
        list[str] | None,
        typer.Option(help="PROTOCOLS:KEY=VALUE: a header, triton-grpc-protocol-KEY, that these ask for over gRPC."),
    ] = None,
    name: Annotated[str, typer.Option("--id", help="What the server calls itself in its metadata.")] = "triune",
    log_verbose: Annotated[int, typer.Option(min=0, help="0 for what matters, 1 or more for everything.")] = 0,
    log_info: Annotated[bool, typer.Option(help="Log what happens.")] = True,
    log_warning: Annotated[bool, typer.Option(help="Log warnings.")] = True,
    log_error: Annotated[bool, typer.Option(help="Log errors.")] = True,
    log_format: Annotated[LogFormat, typer.Option(help="Triune's lines, or Triton's two forms.")] = LogFormat.TRIUNE,
    log_file: Annotated[Path | None, typer.Option(help="Where to log; standard error if left out.")] = None,
) -> None:
    """Serve a model repository by Triton's protocols. Ctrl-C finishes what is under way; twice stops at once.

    Takes every flag of tritonserver's: those without effect here are told in one line, the impossible say why.
    """
    console = Console(stderr=True)
    log = set_up_logs(LogOptions(log_verbose, log_info, log_warning, log_error, log_format, log_file), console)
    sizes, others = read_backend_config(backend_config or ())
    ignored = [*(context.obj or ()), *(f"--backend-config={each} (no such setting here)" for each in others)]
    if ignored:
        _log.warning("flags without effect here: %s", "; ".join(ignored))
    metrics = MetricsOptions.parse(
        metrics_config or (), has_cpu=allow_cpu_metrics, interval_seconds=metrics_interval_ms / 1000
    )
    models = ModelSettings(
        completion=Completion(
            default_max_batch_sizes=sizes, is_off=disable_auto_complete_config, config_name=model_config_name
        ),
        limits=ModelLimits(
            load_timeout_secs,
            run_timeout_secs,
            QueueLimits(max_queue_size, max_queue_secs or math.inf),
        ),
        cache_bytes=cache_bytes(cache_config or (), response_cache_byte_size),
        has_distributions=metrics.has_distributions,
    )
    settings = Settings(
        repository=RepositorySettings(
            folders=repository,
            control_mode=model_control_mode,
            startup_models=load_model or (),
            poll_seconds=repository_poll_secs,
            num_load_threads=model_load_thread_count,
            num_load_retries=model_load_retry_count,
            models=models,
        ),
        ports=Ports(
            host=host,
            http=http_port if allow_http else None,
            grpc=grpc_port if allow_grpc else None,
            metrics=metrics_port if allow_metrics else None,
            http_host=http_address,
            grpc_host=grpc_address,
            metrics_host=metrics_address or http_address,
            is_http_shared=reuse_http_port,
        ),
        memory=Memory(
            inflight_bytes=max_inflight_bytes, conversion_bytes=conversion_memory_bytes, run_bytes=run_memory_bytes
        ),
        limits=Limits(
            request_bytes=max_request_bytes,
            grpc_request_bytes=max_grpc_request_bytes,
            json_bytes=max_json_bytes,
            decompression_ratio=max_decompression_ratio,
            connections=max_connections,
            streams=max_streams,
            head_bytes=max_header_bytes,
            chunks=max_chunks,
            receive_seconds=receive_timeout_secs,
            send_seconds=send_timeout_secs,
            idle_seconds=idle_timeout_secs,
        ),
        channel=ChannelOptions(
            compression=grpc_infer_response_compression_level,
            is_port_shared=reuse_grpc_port,
            keepalive_time_ms=grpc_keepalive_time,
            keepalive_timeout_ms=grpc_keepalive_timeout,
            keepalive_permit_without_calls=grpc_keepalive_permit_without_calls,
            max_pings_without_data=grpc_http2_max_pings_without_data,
            min_ping_interval_ms=grpc_http2_min_recv_ping_interval_without_data,
            max_ping_strikes=grpc_http2_max_ping_strikes,
            max_connection_age_ms=grpc_max_connection_age,
            max_connection_age_grace_ms=grpc_max_connection_age_grace,
        ),
        metrics=metrics,
        num_http_threads=http_thread_count,
        is_ready_strict=strict_readiness,
        is_exiting_on_error=exit_on_error,
        exit_timeout_seconds=exit_timeout_secs,
        name=name,
        access=Access.of(
            read_keys(api_keys or (), api_key_file, os.environ),
            http_restricted_api or (),
            grpc_restricted_protocol or (),
        ),
    )
    run(settings, console, log)


def read_backend_config(given: Sequence[str]) -> tuple[dict[str, int], list[str]]:
    """Triton's `--backend-config`: `BACKEND,SETTING=VALUE`, or `SETTING=VALUE` for all, which `*` means too.

    Returns:
        `default-max-batch-size` by backend, "" for all; and what was given of other settings, as it was.

    Raises:
        InvalidArgumentError: it is not of that form, or the size is no whole number of 0 or more.
    """
    sizes: dict[str, int] = {}
    others: list[str] = []
    for each in given:
        left, equals, value = each.partition("=")
        backend, comma, setting = left.partition(",")
        if not comma:
            backend, setting = "", left
        if not (equals and setting and value) or (comma and not backend):
            raise InvalidArgumentError(
                "--backend-config option format is '<backend name>,<setting>=<value>' or '<setting>=<value>'. "
                f"Got {each}"
            )
        if setting != "default-max-batch-size":
            others.append(each)
            continue
        if not (value.isascii() and value.isdigit() and int(value) < 2**31):
            raise InvalidArgumentError(
                f"--backend-config={each}: {setting} must be a whole number from 0 to 2147483647"
            )
        sizes["" if backend == "*" else backend] = int(value)
    return sizes, others


def run(settings: Settings, console: Console, log: LogWriter) -> None:
    """Serve until told to stop, saying what is served and where, as `console` would, through `log`."""

    def on_ready(server: Server, addresses: app.Addresses) -> None:
        tell(server, addresses, console, log)

    # A printer imports much when it is first used, and clients may have taken every descriptor by the end of the loads.
    with console.capture():
        console.print(Table("model", title=":warning: [yellow]...[/]"))

    # What those before it left who were killed.
    sweep(Path(tempfile.gettempdir()))

    code = 1
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(app.serve(settings, on_ready))
        code = 0
    finally:
        # The interpreter waits for whoever writes to standard error before it ends, and so for whoever reads. What is
        # left is a load that was given up.
        if not log.is_read() or (code == 0 and is_work_left()):
            os._exit(code)


def tell(server: Server, addresses: app.Addresses, console: Console, log: LogWriter) -> None:
    """Say what is served and where, as `console` would, through `log`: or there why not, and nothing else ends."""
    try:
        text = _describe(console, server, addresses)
    except Exception:  # noqa: BLE001 - whatever fails here, models are served
        _log.exception("models are served, but what and where cannot be printed")
    else:
        log.say(text)


def _describe(console: Console, server: Server, addresses: app.Addresses) -> str:
    """What is served, and where."""
    with console.capture() as said:
        _print_models(console, server)
        for name, address in (("HTTP", addresses.http), ("gRPC", addresses.grpc), ("metrics", addresses.metrics)):
            if address:
                path = "/metrics" if name == "metrics" else ""
                text = address if name == "gRPC" else f"http://{address}{path}"
                console.print(f"{name:8} {text}", highlight=False)
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
        errors = ", ".join(f"{unit.value} {error:.2g}" for unit, error in model.statistics.unit_errors.items())
        table.add_row(escaped(entry.name), str(entry.version), units, errors)
        if entry.reason:
            others.append(f"[yellow]{escaped(entry.name)} version {entry.version}[/] is {escaped(entry.reason)}")
    console.print(table)
    for line in others:
        console.print(line, soft_wrap=True)
