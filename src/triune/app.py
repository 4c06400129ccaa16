"""The composition root: the one place where everything is built and joined."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from triune.config.limits import DEFAULT_LIMITS as DEFAULT_MODEL_LIMITS
from triune.config.limits import ModelLimits
from triune.config.placement import DEFAULT_COMPLETION, Completion
from triune.core.addresses import format_address
from triune.core.cache import cache_folder
from triune.core.clock import MonotonicClock
from triune.core.errors import InvalidArgumentError
from triune.core.printable import encodable, printable
from triune.frontends.access import Access
from triune.frontends.embedded import num_addresses
from triune.frontends.kserve.budget import MemoryBudget
from triune.frontends.kserve.grpc.server import ChannelOptions, GrpcServer
from triune.frontends.kserve.http.server import HttpServer
from triune.frontends.kserve.limits import Limits
from triune.frontends.kserve.offload import Offload, quick_switches
from triune.frontends.metrics import MetricsServer
from triune.frontends.metrics.options import MetricsOptions
from triune.frontends.short import ShortLimits
from triune.hardware.cpu import read_cpu
from triune.hardware.units import detect_units
from triune.hosting import kill_all
from triune.lifetime.descriptors import connections_within, raise_descriptor_limit
from triune.lifetime.ending import Ending
from triune.lifetime.watchdog import Watchdog
from triune.repository.repository import ControlMode, Repository
from triune.runtimes import available
from triune.scheduling.response_cache import ResponseCache
from triune.serving.server import Server

DEFAULT_LIMITS = Limits()

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """What a server is to be.

    Attributes:
        repositories: folders of models, in Triton's layout.
        host: address that every port listens on that has none of its own.
        http_host, grpc_host, metrics_host: a port's own address.
        http_port: KServe over HTTP; None serves no HTTP; 0 takes a free port.
        grpc_port: KServe over gRPC, likewise.
        metrics_port: Prometheus metrics, likewise.
        is_http_port_shared: servers that all say so may listen on one port.
        control_mode: whether models may come and go while it serves.
        startup_models: with explicit control, what to load at the start; `*` is all.
        poll_seconds: with poll control, how often the repositories are looked at.
        num_load_threads: models that load at once.
        num_load_retries: how often a version that does not load is tried again.
        completion: how the models' configs are completed.
        model_limits: how long models may take, and how many of their requests wait, that do not say it themselves.
        is_ready_strict: ready only while every model is.
        is_exiting_on_error: a model that fails to load at the start ends the server, and a repository that cannot be
            read; False: neither does; None: the repository alone.
        exit_timeout_seconds: how long requests under way may take when it stops.
        limits: what clients may ask.
        num_http_threads: what decodes, encodes and compresses large requests; None takes a few, by the machine.
        conversion_bytes: the memory that a conversion may take; None takes three quarters of the machine's.
        run_bytes: the memory that one run may take; None takes what all requests may, and a GiB at least.
        cache_bytes: what the response cache may take of the memory; None has none.
        max_inflight_bytes: what all requests under way may take of the memory; None takes a quarter of the machine's.
        channel: what gRPC's connections are like.
        metrics: which metrics there are.
        name: what the server calls itself in its metadata.
        access: who may call what.
    """

    repositories: Sequence[Path]
    host: str = "127.0.0.1"
    http_port: int | None = 8000
    grpc_port: int | None = 8001
    metrics_port: int | None = 8002
    http_host: str | None = None
    grpc_host: str | None = None
    metrics_host: str | None = None
    is_http_port_shared: bool = False
    control_mode: ControlMode = ControlMode.NONE
    startup_models: Sequence[str] = ()
    poll_seconds: float = 15.0
    num_load_threads: int = 4
    num_load_retries: int = 0
    completion: Completion = DEFAULT_COMPLETION
    model_limits: ModelLimits = DEFAULT_MODEL_LIMITS
    is_ready_strict: bool = True
    is_exiting_on_error: bool | None = None
    exit_timeout_seconds: float = 30.0
    limits: Limits = DEFAULT_LIMITS
    cache_bytes: int | None = None
    max_inflight_bytes: int | None = None
    conversion_bytes: int | None = None
    run_bytes: int | None = None
    num_http_threads: int | None = None
    channel: ChannelOptions = field(default_factory=ChannelOptions)
    metrics: MetricsOptions = field(default_factory=MetricsOptions)
    name: str = "triune"
    access: Access = field(default_factory=Access)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a running server is reached: `host:port`, None for what it does not serve."""

    http: str | None
    grpc: str | None
    metrics: str | None


def make_repository(
    folders: Sequence[Path],
    *,
    control_mode: ControlMode = ControlMode.NONE,
    startup_models: Sequence[str] = (),
    poll_seconds: float = 15.0,
    num_load_threads: int = 4,
    num_load_retries: int = 0,
    completion: Completion = DEFAULT_COMPLETION,
    has_distributions: bool = False,
    model_limits: ModelLimits = DEFAULT_MODEL_LIMITS,
    conversion_bytes: int | None = None,
    cache_bytes: int | None = None,
    is_missing_allowed: bool = False,
    run_bytes: int | None = None,
) -> Repository:
    """A repository over this machine's units and runtimes, not yet open.

    Where `is_missing_allowed`, a folder that does not exist is an error of `open` only.

    Raises:
        InvalidArgumentError: a folder does not exist.
    """
    for folder in folders:
        if not is_missing_allowed and not folder.is_dir():
            raise InvalidArgumentError(f"the model repository '{folder}' is no folder; give one that exists")
        if (shown := encodable(f"{folder}")) != f"{folder}":
            raise InvalidArgumentError(f"the name of the model repository '{shown}' is not UTF-8; rename it")
    cpu = read_cpu()
    units = detect_units(cpu)
    return Repository(
        folders,
        runtimes=available(units, conversion_bytes=conversion_bytes, run_bytes=run_bytes),
        units=units,
        control_mode=control_mode,
        startup_models=startup_models,
        poll_seconds=poll_seconds,
        num_load_threads=num_load_threads,
        num_load_retries=num_load_retries,
        completion=completion,
        has_distributions=has_distributions,
        limits=model_limits,
        num_cores=cpu.num_cores,
        clock=MonotonicClock(),
        cache=ResponseCache(cache_bytes) if cache_bytes is not None else None,
        trials=cache_folder() / "loaded",
    )


@contextlib.asynccontextmanager
async def opened(repository: Repository) -> AsyncGenerator[Server]:
    """A server over `repository`, without sockets; the repository is closed at the end."""
    await repository.open()
    try:
        yield Server(repository)
    finally:
        await repository.close()


async def serve(options: Options, on_ready: Callable[[Server, Addresses], None]) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP, then finish what is under way; a second signal stops at once.

    What is still under way after `exit_timeout_seconds` is lost: the process ends, and fails.

    Args:
        options: what to serve, and where.
        on_ready: called once every port listens and every model is loaded, or has failed to.

    Raises:
        InvalidArgumentError: an option is wrong, or (is_exiting_on_error) a repository or a model.
        UnavailableError: a port is taken.
    """
    budget = MemoryBudget(options.max_inflight_bytes)
    repository = make_repository(
        options.repositories,
        control_mode=options.control_mode,
        startup_models=options.startup_models,
        poll_seconds=options.poll_seconds,
        num_load_threads=options.num_load_threads,
        num_load_retries=options.num_load_retries,
        completion=options.completion,
        has_distributions=options.metrics.has_distributions,
        model_limits=options.model_limits,
        conversion_bytes=options.conversion_bytes,
        run_bytes=options.run_bytes or max(1 << 30, budget.limit_bytes),
        cache_bytes=options.cache_bytes,
        is_missing_allowed=options.is_exiting_on_error is False,
    )
    server = Server(repository, name=options.name, is_ready_strict=options.is_ready_strict)
    with Ending(options.exit_timeout_seconds, kill_all) as ending, Watchdog(), quick_switches():
        await _serve(options, server, repository, budget, ending, on_ready)


async def _serve(
    options: Options,
    server: Server,
    repository: Repository,
    budget: MemoryBudget,
    ending: Ending,
    on_ready: Callable[[Server, Addresses], None],
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        offload = Offload(options.num_http_threads)
        stack.callback(offload.close)
        hosts = [each or options.host for each in (options.http_host, options.grpc_host, options.metrics_host)]
        ports = (options.http_port, options.grpc_port, options.metrics_port)
        limits = _within_descriptors(options.limits, hosts, ports)
        short = ShortLimits(
            receive_seconds=limits.receive_seconds,
            idle_seconds=limits.idle_seconds,
            send_seconds=limits.send_seconds,
            connections=limits.connections,
        )
        front_ends = (
            HttpServer(
                server,
                hosts[0],
                ports[0] or 0,
                limits=limits,
                budget=budget,
                offload=offload,
                is_port_shared=options.is_http_port_shared,
                rules=options.access.http,
            ),
            GrpcServer(
                server,
                hosts[1],
                ports[1] or 0,
                limits=limits,
                budget=budget,
                offload=offload,
                channel=options.channel,
                rules=options.access.grpc,
            ),
            MetricsServer(
                server,
                hosts[2],
                ports[2] or 0,
                units=repository.units,
                options=options.metrics,
                limits=short,
                rules=options.access.http,
            ),
        )
        addresses: list[str | None] = []
        # The ports come first: a load balancer may ask for liveness while large models load.
        for front_end, host, port in zip(front_ends, hosts, ports, strict=True):
            if port is None:
                addresses.append(None)
                continue
            addresses.append(format_address(host, await front_end.start()))
            stack.push_async_callback(front_end.stop, 1.0)
        stack.push_async_callback(repository.close)
        try:
            is_open = await _open(repository, ending.stop)
        except InvalidArgumentError as error:
            if options.is_exiting_on_error is not False:
                raise
            server.fail(str(error))
        else:
            if not is_open:
                ending.drained()
                return
        if options.is_exiting_on_error and not repository.is_every_model_ready():
            broken = [printable(f"{entry.name}: {entry.reason}") for entry in repository.index() if entry.reason]
            raise InvalidArgumentError("these models failed to load:\n" + "\n".join(broken))
        on_ready(server, Addresses(*addresses))
        await ending.stop.wait()
        logger.info("draining: requests under way finish, new ones are refused; interrupt again to stop at once")
        # Whether it ends or not: `ending` ends the process in time.
        await server.drain()
        await offload.until_idle()
        ending.drained()


def _within_descriptors(limits: Limits, hosts: Sequence[str], ports: Sequence[int | None]) -> Limits:
    http, grpc, metrics = (int(port is not None) for port in ports)
    # gRPC counts the connections of each address apart.
    num_listeners = max(1, http + grpc * num_addresses(hosts[1]) + metrics)
    num_connections = connections_within(raise_descriptor_limit(), limits.connections, num_listeners)
    return replace(limits, connections=num_connections)


async def _open(repository: Repository, stop: asyncio.Event) -> bool:
    """Load the models. False if `stop` came first: then what was loading is given up, and nothing else is begun."""
    opening = asyncio.create_task(repository.open())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((opening, stopping), return_when=asyncio.FIRST_COMPLETED)
    if opening.done():
        stopping.cancel()
        await opening
        return True
    logger.info("stopping while models load; interrupt again to stop at once")
    await repository.close()
    await opening
    return False
