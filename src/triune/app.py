"""The composition root: it makes the repository, the server and its front ends, and connects them."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from triune.arbiter.arbiter import Arbiter
from triune.backends.machine_backend import ALONE, Shared
from triune.backends.served_times import ServedTimes
from triune.core.addresses import format_address
from triune.core.byte_settings import check_byte_settings
from triune.core.cache import cache_folder
from triune.core.clock import MonotonicClock
from triune.core.errors import InvalidArgumentError
from triune.core.heap import HEAP
from triune.core.power import Power
from triune.core.printable import encodable, printable
from triune.core.scratch import renew_held
from triune.core.threads import NoThreadError, in_thread
from triune.core.units import Unit
from triune.frontends.anthropic import anthropic_routes
from triune.frontends.bodies.budget import MemoryBudget
from triune.frontends.bodies.offload import Offload, short_switch_interval
from triune.frontends.bodies.reader import BodyReader
from triune.frontends.kserve.grpc.server import NUM_DESCRIPTORS, GrpcServer
from triune.frontends.kserve.http.server import HttpServer
from triune.frontends.limits import Limits
from triune.frontends.metrics import MetricsServer
from triune.frontends.openai import openai_routes
from triune.frontends.playground import playground_routes
from triune.frontends.playground.machine import PageMachine
from triune.frontends.routes import ApiRoute
from triune.frontends.short import ShortLimits
from triune.graph.custom import read_custom_ops
from triune.hardware.battery import read_battery
from triune.hardware.energy.metering import metered
from triune.hardware.heat.machine import read_heat
from triune.hosting import leave_nothing
from triune.lifetime.descriptors import connections_within, raise_descriptor_limit, share_of
from triune.lifetime.ending import Ending
from triune.lifetime.garbage import existing_objects_kept
from triune.lifetime.watchdog import Watchdog
from triune.repository.memory.meter import LoadMeter
from triune.repository.repository import Repository
from triune.repository.settings import RepositorySettings
from triune.runtimes.conversion import limit_of
from triune.runtimes.described import times_folder
from triune.runtimes.machine import Machine, this_machine
from triune.serving.power_policy import PowerPolicy, watch
from triune.serving.recording import Recording
from triune.serving.server import Server
from triune.settings import Settings

logger = logging.getLogger(__name__)

_RENEWAL_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Addresses:
    """The addresses of a running server, as `host:port`; None for a protocol that it does not serve.

    Attributes:
        http, grpc, metrics: the ports.
        has_page: whether there is a page for browsers at `/` of the HTTP port.
    """

    http: str | None
    grpc: str | None
    metrics: str | None
    has_page: bool = False


def make_repository(
    settings: RepositorySettings,
    machine: Machine | None = None,
    *,
    is_missing_allowed: bool = False,
    shared: Shared = ALONE,
    meter: LoadMeter | None = None,
) -> Repository:
    """Make a repository without opening it.

    Args:
        settings: the folders of the models, and which models are served.
        machine: the machine that models are loaded on; None takes this machine.
        is_missing_allowed: if True, a missing folder is reported by `Repository.open` and not here.
        shared: what all models share: see `Repository`.
        meter: measures what loads take in memory; None measures this process.

    Raises:
        InvalidArgumentError: a folder does not exist.
    """
    for folder in settings.folders:
        if not is_missing_allowed and not folder.is_dir():
            raise InvalidArgumentError(f"the model repository '{folder}' is not a folder; give one that exists")
        if (shown := encodable(f"{folder}")) != f"{folder}":
            raise InvalidArgumentError(f"the name of the model repository '{shown}' is not UTF-8; rename it")
    machine = machine or this_machine()
    kept = cache_folder()
    shared = replace(shared, verdicts=kept / "gates", costs=kept / "batches", times=ServedTimes(times_folder()))
    return Repository(settings, machine, MonotonicClock(), trials=kept / "loaded", shared=shared, meter=meter)


@contextlib.asynccontextmanager
async def opened(repository: Repository) -> AsyncGenerator[Server]:
    """A context in which `repository` is open. Yields a server for it without ports."""
    await repository.open()
    try:
        yield Server(repository)
    finally:
        await repository.close()


async def serve(settings: Settings, on_ready: Callable[[Server, Addresses], None]) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP, then finish the requests under way. A second signal stops at once.

    Requests that are not finished `exit_timeout_seconds` after the signal are lost: the process exits with an error.

    Args:
        settings: the models, ports, limits and access rules.
        on_ready: called when every port listens and every model is loaded or has failed to load.

    Raises:
        AlreadyExistsError: the file to record in exists.
        InvalidArgumentError: an option is wrong; or, with `is_exiting_on_error`, a repository cannot be read or a model
            fails to load.
        UnavailableError: a port is taken.
    """
    check_byte_settings()
    memory = settings.memory
    budget = MemoryBudget(memory.inflight_bytes)
    run_bytes = memory.run_bytes or max(1 << 30, budget.limit_bytes)
    machine = this_machine(
        conversion_bytes=memory.conversion_bytes,
        load_bytes=max(settings.repository.memory_budget_bytes(), limit_of(memory.conversion_bytes)),
        run_bytes=run_bytes,
        custom_ops=read_custom_ops(settings.custom_ops),
    )
    # Limit the arenas of malloc, each of which keeps memory that threads have freed: the threads for large requests
    # come and go, and in many arenas this adds up to hundreds of megabytes.
    HEAP.limit_arenas(max(2, machine.num_cores))
    is_missing_allowed = settings.is_exiting_on_error is False
    with metered(machine.units, settings.energy_interval_seconds) as energy:
        arbiter = Arbiter(MonotonicClock(), machine.emulated(Unit))
        shared = Shared(energy, Power(settings.power_mode), arbiter)
        repository = make_repository(
            settings.repository,
            machine,
            is_missing_allowed=is_missing_allowed,
            shared=shared,
            meter=LoadMeter(read_requests=lambda: budget.reserved_bytes),
        )
        with (
            _recording(settings.trace) as recording,
            Ending(settings.exit_timeout_seconds, leave_nothing) as ending,
            Watchdog(),
            short_switch_interval(),
            existing_objects_kept(),
        ):
            server = Server(
                repository, name=settings.name, is_ready_strict=settings.is_ready_strict, recording=recording
            )
            await _serve(settings, server, repository, budget, shared, ending, on_ready)


@contextlib.contextmanager
def _recording(path: Path | None) -> Generator[Recording | None]:
    recording = Recording(path, MonotonicClock()) if path is not None else None
    try:
        yield recording
    finally:
        if recording is not None:
            recording.close()


async def _serve(
    settings: Settings,
    server: Server,
    repository: Repository,
    budget: MemoryBudget,
    shared: Shared,
    ending: Ending,
    on_ready: Callable[[Server, Addresses], None],
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        offload = Offload(settings.num_http_threads)
        stack.callback(offload.close)
        at = settings.ports
        hosts = [each or at.host for each in (at.http_host, at.grpc_host, at.metrics_host)]
        ports = (at.http, at.grpc, at.metrics)
        limits, grpc_limits = _within_descriptors(settings.limits, ports)
        short = ShortLimits(
            receive_seconds=limits.receive_seconds,
            idle_seconds=limits.idle_seconds,
            send_seconds=limits.send_seconds,
            connections=limits.connections,
        )
        page = PageMachine(repository.units, server.power, shared.energy) if settings.has_playground else None
        front_ends = (
            HttpServer(
                server,
                hosts[0],
                ports[0] or 0,
                limits=limits,
                budget=budget,
                offload=offload,
                is_port_shared=at.is_http_shared,
                rules=settings.access.http,
                hosts=settings.access.own_hosts(hosts[0]),
                more_routes=lambda bodies: routes_beside(server, bodies, offload, page),
            ),
            GrpcServer(
                server,
                hosts[1],
                ports[1] or 0,
                limits=grpc_limits,
                budget=budget,
                offload=offload,
                channel=settings.channel,
                rules=settings.access.grpc,
            ),
            MetricsServer(
                server,
                hosts[2],
                ports[2] or 0,
                units=repository.units,
                options=settings.metrics,
                ledger=shared.energy,
                arbiter=shared.arbiter,
                keeper=server.memory,
                limits=short,
                rules=settings.access.http,
                hosts=settings.access.own_hosts(hosts[2]),
            ),
        )
        addresses: list[str | None] = []
        # Listen before loading models, so that a load balancer can check whether the server is live.
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
            if settings.is_exiting_on_error is not False:
                raise
            server.fail(str(error))
        else:
            if not is_open:
                ending.drained()
                return
        if settings.is_exiting_on_error and not repository.is_every_model_ready():
            broken = [printable(f"{entry.name}: {entry.reason}") for entry in repository.index() if entry.reason]
            raise InvalidArgumentError("these models failed to load:\n" + "\n".join(broken))
        offload.warm()
        watching = asyncio.create_task(watch(PowerPolicy(server.power), read_battery, read_heat))
        stack.callback(watching.cancel)
        renewing = asyncio.create_task(_renew_temporary())
        stack.callback(renewing.cancel)
        on_ready(server, Addresses(*addresses, has_page=settings.has_playground))
        await ending.stop.wait()
        logger.info("draining: requests under way finish, new ones are refused; interrupt again to stop at once")
        # Waiting for requests may take forever. `ending` ends the process after the exit timeout.
        await server.drain()
        await offload.until_idle()
        ending.drained()


async def _renew_temporary() -> None:
    """Keep the temporary folders of this process in use, for systems that remove old temporary files."""
    while True:
        await asyncio.sleep(_RENEWAL_SECONDS)
        with contextlib.suppress(NoThreadError):
            await in_thread(renew_held)


def routes_beside(server: Server, bodies: BodyReader, offload: Offload, page: PageMachine | None) -> list[ApiRoute]:
    """Make the routes of the HTTP port in addition to KServe's: Anthropic's and OpenAI's APIs, and the page.

    Args:
        server: the server.
        bodies: reads and parses request bodies.
        offload: the threads that encode large answers.
        page: what the page for browsers shows of the machine; None for a server without that page.
    """
    # OpenAI's routes answer every path below /v1, so they come last.
    apis = [*anthropic_routes(server, bodies), *openai_routes(server, bodies, offload)]
    return [*apis, *(playground_routes(server, page) if page is not None else ())]


def _within_descriptors(limits: Limits, ports: Sequence[int | None]) -> tuple[Limits, Limits]:
    """The limits of HTTP and metrics, and the limits of gRPC, whose connections need several file descriptors each."""
    num_listeners = max(1, sum(port is not None for port in ports))
    num_descriptors = raise_descriptor_limit()
    num_connections = connections_within(num_descriptors, limits.connections, num_listeners)
    num_grpc = max(1, share_of(num_descriptors, num_listeners) // NUM_DESCRIPTORS)
    return (
        replace(limits, connections=num_connections),
        replace(limits, connections=min(num_grpc, limits.connections)),
    )


async def _open(repository: Repository, stop: asyncio.Event) -> bool:
    """Load the models. If `stop` is set first, abandon the loads under way, start no others and return False."""
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
