"""`triune serve`: serve a model repository."""

import logging
import math
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from triune.cli.api_keys import take_keys
from triune.cli.backend_config import read_backend_config
from triune.cli.cache_config import cache_bytes
from triune.cli.custom_ops import CustomOpFiles
from triune.cli.logs import LogFormat, LogOptions, set_up_logs
from triune.cli.serving import run
from triune.config.limits import DEFAULT_LIMITS as DEFAULT_MODEL_LIMITS
from triune.config.limits import ModelLimits
from triune.config.policy import QueueLimits
from triune.config.settings import Completion, ModelSettings
from triune.core.power import PowerMode
from triune.frontends.access import Access
from triune.frontends.kserve.grpc.server import ChannelOptions, Compression
from triune.frontends.limits import Limits
from triune.frontends.metrics.options import MetricsOptions
from triune.hardware.energy.accountant import INTERVAL_SECONDS
from triune.repository.settings import ControlMode, RepositorySettings
from triune.settings import DEFAULT_LIMITS, Memory, Ports, Settings

_log = logging.getLogger(__name__)


def serve(
    context: typer.Context,
    repository: Annotated[
        list[Path],
        typer.Option(
            "--repository", "--model-repository", "--model-store", help="A model repository; may be repeated."
        ),
    ],
    host: Annotated[str, typer.Option(help="The address that all ports listen on.")] = "127.0.0.1",
    http_address: Annotated[str | None, typer.Option(help="The address of the HTTP port, if different.")] = None,
    grpc_address: Annotated[str | None, typer.Option(help="The address of the gRPC port, if different.")] = None,
    metrics_address: Annotated[
        str | None, typer.Option(help="The address of the metrics port; by default that of HTTP.")
    ] = None,
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="The HTTP port; 0 takes a free one.")] = 8000,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="The gRPC port; 0 takes a free one.")] = 8001,
    metrics_port: Annotated[
        int, typer.Option(min=0, max=65535, help="The Prometheus metrics port; 0 takes a free one.")
    ] = 8002,
    reuse_http_port: Annotated[bool, typer.Option(help="Share the HTTP port with other servers.")] = False,
    reuse_grpc_port: Annotated[bool, typer.Option(help="Share the gRPC port with other servers.")] = False,
    allow_http: Annotated[bool, typer.Option(help="Serve HTTP.")] = True,
    allow_grpc: Annotated[bool, typer.Option(help="Serve gRPC.")] = True,
    allow_metrics: Annotated[bool, typer.Option(help="Serve metrics.")] = True,
    playground: Annotated[bool, typer.Option(help="Show a page for browsers at / of the HTTP port.")] = True,
    allow_cpu_metrics: Annotated[bool, typer.Option(help="Export the metrics nv_cpu_*.")] = True,
    metrics_interval_ms: Annotated[float, typer.Option(min=0, help="How often nv_cpu_* are measured, at most.")] = 2000,
    power_mode: Annotated[
        PowerMode, typer.Option(help="What is done for speed, and what without; docs/energy.md has the table.")
    ] = PowerMode.BALANCED,
    energy_interval_ms: Annotated[
        float, typer.Option(min=0, help="How often meters of energy are read; 0 does not meter energy.")
    ] = INTERVAL_SECONDS * 1000,
    metrics_config: Annotated[
        list[str] | None, typer.Option(help="SETTING=VALUE, summary_latencies=true for example.")
    ] = None,
    model_control_mode: Annotated[
        ControlMode, typer.Option(help="When models are loaded: once (none), by request (explicit), or by polling.")
    ] = ControlMode.NONE,
    load_model: Annotated[
        list[str] | None, typer.Option(help="With explicit control: a model to load at the start; * loads all.")
    ] = None,
    repository_poll_secs: Annotated[
        float, typer.Option(min=0.1, help="With poll control: seconds between scans.")
    ] = 15.0,
    model_load_thread_count: Annotated[
        int, typer.Option(min=1, max=1024, help="How many models load in parallel.")
    ] = 4,
    model_load_retry_count: Annotated[int, typer.Option(min=0, help="How often to retry a failed load.")] = 0,
    load_timeout_secs: Annotated[
        float, typer.Option(min=0.001, max=1e9, help="Time limit of a model's load, unless its config sets it.")
    ] = DEFAULT_MODEL_LIMITS.load_seconds,
    run_timeout_secs: Annotated[
        float, typer.Option(min=0.001, max=1e9, help="Time limit of a run, unless the model's config sets it.")
    ] = DEFAULT_MODEL_LIMITS.run_seconds,
    conversion_memory_bytes: Annotated[
        int | None, typer.Option(min=1 << 20, help="Memory limit of a conversion [default: 3/4 of the machine's].")
    ] = None,
    run_memory_bytes: Annotated[
        int | None,
        typer.Option(min=1 << 20, help="Memory limit of a run [default: --max-inflight-bytes, at least 1 GiB]."),
    ] = None,
    model_memory_bytes: Annotated[
        int | None,
        typer.Option(min=1 << 20, help="Memory that all models may take together [default: 9/10 of the machine's]."),
    ] = None,
    model_config_name: Annotated[
        str, typer.Option(help="Use configs/NAME.pbtxt, where it exists, instead of config.pbtxt.")
    ] = "",
    disable_auto_complete_config: Annotated[
        bool, typer.Option("--disable-auto-complete-config", help="Require a complete config.pbtxt.")
    ] = False,
    backend_config: Annotated[
        list[str] | None, typer.Option(help="BACKEND,default-max-batch-size=N; without a backend or with *, for all.")
    ] = None,
    cache_config: Annotated[
        list[str] | None, typer.Option(help="local,size=BYTES: cache responses of models that enable response_cache.")
    ] = None,
    response_cache_byte_size: Annotated[
        int | None, typer.Option(min=0, help="Older form of --cache-config=local,size=BYTES.")
    ] = None,
    strict_readiness: Annotated[bool, typer.Option(help="Be ready only while every model is ready.")] = True,
    exit_on_error: Annotated[
        bool | None,
        typer.Option(help="Exit if a model or the repository fails at the start [default: only the repository]."),
    ] = None,
    exit_timeout_secs: Annotated[
        float, typer.Option(min=0, max=1e9, help="Seconds for requests under way to finish after a stop signal.")
    ] = 30.0,
    max_request_bytes: Annotated[
        int, typer.Option("--max-request-bytes", "--http-max-input-size", min=1, help="The largest request.")
    ] = DEFAULT_LIMITS.request_bytes,
    max_grpc_request_bytes: Annotated[
        int, typer.Option(min=1, help="The largest gRPC message, if that is less.")
    ] = DEFAULT_LIMITS.grpc_request_bytes,
    max_json_bytes: Annotated[
        int, typer.Option(min=1, help="The largest JSON in a request.")
    ] = DEFAULT_LIMITS.json_bytes,
    max_decompression_ratio: Annotated[
        int, typer.Option(min=1, help="The largest decompression ratio of a body, beyond 8 MiB.")
    ] = DEFAULT_LIMITS.decompression_ratio,
    max_inflight_bytes: Annotated[
        int | None,
        typer.Option(min=1 << 20, help="Memory limit of all requests under way [default: 1/4 of the machine's]."),
    ] = None,
    max_connections: Annotated[
        int, typer.Option(min=1, help="The largest number of connections of each port.")
    ] = DEFAULT_LIMITS.connections,
    max_streams: Annotated[
        int, typer.Option(min=1, help="The largest number of concurrent calls of one gRPC connection.")
    ] = DEFAULT_LIMITS.streams,
    max_calls: Annotated[
        int, typer.Option(min=2, help="The largest number of concurrent calls of all gRPC connections.")
    ] = DEFAULT_LIMITS.calls,
    max_frames_per_sec: Annotated[
        int, typer.Option(min=1, help="How many small HTTP/2 frames a second are read from one gRPC connection.")
    ] = DEFAULT_LIMITS.frames_per_second,
    max_queue_size: Annotated[
        int, typer.Option(min=0, help="The longest queue, unless a config sets max_queue_size; 0 is unlimited.")
    ] = DEFAULT_MODEL_LIMITS.queue.max_requests,
    max_queue_secs: Annotated[
        float, typer.Option(min=0, help="Refuse requests when more than 64 wait longer than this; 0 is unlimited.")
    ] = DEFAULT_MODEL_LIMITS.queue.max_seconds,
    max_header_bytes: Annotated[
        int, typer.Option(min=1024, help="The largest request line and headers.")
    ] = DEFAULT_LIMITS.head_bytes,
    max_chunks: Annotated[
        int, typer.Option(min=1, help="The largest number of chunks in a request.")
    ] = DEFAULT_LIMITS.chunks,
    receive_timeout_secs: Annotated[
        float, typer.Option(min=0.1, help="Seconds in which a client sends nothing of a request that it has begun.")
    ] = DEFAULT_LIMITS.receive_seconds,
    send_timeout_secs: Annotated[
        float, typer.Option(min=0.1, help="Seconds in which a client reads nothing of its response.")
    ] = DEFAULT_LIMITS.send_seconds,
    idle_timeout_secs: Annotated[
        float, typer.Option(min=0.1, help="Seconds that a connection may be idle.")
    ] = DEFAULT_LIMITS.idle_seconds,
    http_thread_count: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Threads that decode, encode and compress large bodies.")
    ] = None,
    grpc_infer_response_compression_level: Annotated[
        Compression, typer.Option(case_sensitive=False, help="Compression of responses, for clients that accept it.")
    ] = Compression.NONE,
    grpc_keepalive_time: Annotated[
        int | None, typer.Option(min=1, help="Milliseconds without activity before a client is pinged.")
    ] = None,
    grpc_keepalive_timeout: Annotated[
        int | None, typer.Option(min=1, help="Milliseconds to wait for the reply to a ping.")
    ] = None,
    grpc_keepalive_permit_without_calls: Annotated[
        bool | None, typer.Option(help="Ping also when no call is under way.")
    ] = None,
    grpc_http2_max_pings_without_data: Annotated[
        int | None, typer.Option(min=0, help="The largest number of pings without data; 0 is unlimited.")
    ] = None,
    grpc_http2_min_recv_ping_interval_without_data: Annotated[
        int | None, typer.Option(min=0, help="The shortest time between a client's pings, in milliseconds.")
    ] = None,
    grpc_http2_max_ping_strikes: Annotated[
        int | None, typer.Option(min=0, help="Early pings before the connection is closed; 0 is unlimited.")
    ] = None,
    grpc_max_connection_age: Annotated[
        int | None, typer.Option(min=1, help="How long a connection may exist, in milliseconds.")
    ] = None,
    grpc_max_connection_age_grace: Annotated[
        int | None, typer.Option(min=0, help="How long its calls may continue after that, in milliseconds.")
    ] = None,
    grpc_relay: Annotated[
        bool, typer.Option(help="Keep floods of one gRPC connection from the others; without, calls cost less.")
    ] = True,
    api_keys: Annotated[
        list[str] | None,
        typer.Option(
            "--api-key", help="An API key that callers must send. Process lists show it, unlike TRIUNE_API_KEY."
        ),
    ] = None,
    api_key_file: Annotated[Path | None, typer.Option(help="A file with one API key in each line.")] = None,
    http_restricted_api: Annotated[
        list[str] | None, typer.Option(help="APIS:HEADER=VALUE: HTTP callers of these APIs must send this header.")
    ] = None,
    grpc_restricted_protocol: Annotated[
        list[str] | None,
        typer.Option(help="PROTOCOLS:KEY=VALUE: gRPC callers must send the header triton-grpc-protocol-KEY."),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="A name in Host headers that a server on a loopback address takes; * for any."),
    ] = None,
    custom_ops: CustomOpFiles = None,
    record: Annotated[
        Path | None, typer.Option(help="A new file for a trace of arrivals, which `triune simulate` reads.")
    ] = None,
    name: Annotated[str, typer.Option("--id", help="The server's name in its metadata.")] = "triune",
    log_verbose: Annotated[int, typer.Option(min=0, help="1 or more logs everything.")] = 0,
    log_info: Annotated[bool, typer.Option(help="Log information.")] = True,
    log_warning: Annotated[bool, typer.Option(help="Log warnings.")] = True,
    log_error: Annotated[bool, typer.Option(help="Log errors.")] = True,
    log_format: Annotated[
        LogFormat, typer.Option(help="The format of log lines; default and ISO8601 are Triton's.")
    ] = LogFormat.TRIUNE,
    log_file: Annotated[Path | None, typer.Option(help="The file to log to [default: standard error].")] = None,
) -> None:
    """Serve model repositories over Triton's protocols. Ctrl-C finishes requests under way; twice stops at once.

    Accepts every flag of tritonserver. Flags without effect here are logged; flags that cannot work are errors.
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
            model_memory_bytes=model_memory_bytes,
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
            calls=max_calls,
            frames_per_second=max_frames_per_sec,
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
            has_relay=grpc_relay,
        ),
        metrics=metrics,
        power_mode=power_mode,
        energy_interval_seconds=energy_interval_ms / 1000,
        num_http_threads=http_thread_count,
        is_ready_strict=strict_readiness,
        is_exiting_on_error=exit_on_error,
        exit_timeout_seconds=exit_timeout_secs,
        name=name,
        has_playground=playground,
        custom_ops=tuple(custom_ops or ()),
        trace=record,
        access=Access.of(
            take_keys(api_keys or (), api_key_file, os.environ),
            http_restricted_api or (),
            grpc_restricted_protocol or (),
            allowed_host or (),
        ),
    )
    run(settings, console, log)
