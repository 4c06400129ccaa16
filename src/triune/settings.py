"""The settings of a server: one immutable value, made by the command line or by a caller of `app.serve`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from triune.core.power import PowerMode
from triune.frontends.access import Access
from triune.frontends.kserve.grpc.server import ChannelOptions
from triune.frontends.limits import Limits
from triune.frontends.metrics.options import MetricsOptions
from triune.hardware.energy.accountant import INTERVAL_SECONDS
from triune.repository.settings import RepositorySettings

DEFAULT_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class Ports:
    """The addresses and ports that a server listens on. A protocol whose port is None is off; 0 takes a free port.

    Attributes:
        host: the address of every port that has no address of its own.
        http: the port of KServe over HTTP.
        grpc: the port of KServe over gRPC.
        metrics: the port of Prometheus metrics.
        http_host, grpc_host, metrics_host: the address of one port, in place of `host`.
        is_http_shared: whether SO_REUSEPORT is set on the HTTP port, so that several servers can share it.
    """

    host: str = "127.0.0.1"
    http: int | None = 8000
    grpc: int | None = 8001
    metrics: int | None = 8002
    http_host: str | None = None
    grpc_host: str | None = None
    metrics_host: str | None = None
    is_http_shared: bool = False


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory limits, in bytes.

    Attributes:
        inflight_bytes: the limit for all running and waiting requests together; None means a quarter of the machine's
            memory.
        conversion_bytes: the limit for one conversion of a model; None means three quarters of the machine's memory.
        run_bytes: the limit for one run of a model; None means `inflight_bytes`, but at least 1 GiB.
    """

    inflight_bytes: int | None = None
    conversion_bytes: int | None = None
    run_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a server.

    Attributes:
        repository: the folders of the models and how they are loaded.
        ports: the addresses and ports to listen on.
        memory: memory limits.
        limits: limits on requests and connections.
        access: API keys and restricted protocols.
        channel: gRPC's connection options.
        metrics: which metrics are exported.
        num_http_threads: threads that decode, encode and compress large requests; None takes one for each core, from
            2 to 4.
        is_ready_strict: whether the server counts as ready only while every model is ready.
        is_exiting_on_error: which errors at the start end the server. True: a model that fails to load, or a repository
            that cannot be read. None: only a repository that cannot be read. False: neither.
        exit_timeout_seconds: how long running requests may take after the server was told to stop.
        name: the server's name in its metadata.
        energy_interval_seconds: how often the meters of energy are read; 0 does not meter energy.
        power_mode: the power mode at the start, which trades speed for energy.
        has_playground: whether there is a page for browsers at `/` of the HTTP port.
        custom_ops: Python files and shared libraries of custom operators, which all models may use. They are run with
            all rights of the server.
        trace: the file in which the arrival times of requests are recorded; None records nothing.
    """

    repository: RepositorySettings
    ports: Ports = field(default_factory=Ports)
    memory: Memory = field(default_factory=Memory)
    limits: Limits = DEFAULT_LIMITS
    access: Access = field(default_factory=Access)
    channel: ChannelOptions = field(default_factory=ChannelOptions)
    metrics: MetricsOptions = field(default_factory=MetricsOptions)
    num_http_threads: int | None = None
    is_ready_strict: bool = True
    is_exiting_on_error: bool | None = None
    exit_timeout_seconds: float = 30.0
    name: str = "triune"
    energy_interval_seconds: float = INTERVAL_SECONDS
    power_mode: PowerMode = PowerMode.BALANCED
    has_playground: bool = True
    custom_ops: tuple[Path, ...] = ()
    trace: Path | None = None
