"""What a server is to be: one value, made once by whoever starts it."""

from dataclasses import dataclass, field
from typing import Final

from triune.frontends.access import Access
from triune.frontends.kserve.grpc.server import ChannelOptions
from triune.frontends.kserve.limits import Limits
from triune.frontends.metrics.options import MetricsOptions
from triune.repository.settings import RepositorySettings

DEFAULT_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a server listens. A port that is None is not served; 0 takes a free one.

    Attributes:
        host: address that every port listens on that has none of its own.
        http: KServe over HTTP.
        grpc: KServe over gRPC.
        metrics: Prometheus metrics.
        http_host, grpc_host, metrics_host: a port's own address.
        is_http_shared: servers that all say so may listen on one port.
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
    """What may be taken of the memory, in bytes.

    Attributes:
        inflight_bytes: by all requests under way; None takes a quarter of the machine's.
        conversion_bytes: by a conversion; None takes three quarters of the machine's.
        run_bytes: by one run; None takes what all requests may, and a GiB at least.
    """

    inflight_bytes: int | None = None
    conversion_bytes: int | None = None
    run_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """What a server is to be.

    Attributes:
        repository: its models.
        ports: where it listens.
        memory: what it may take of the memory.
        limits: what clients may ask.
        access: who may call what.
        channel: what gRPC's connections are like.
        metrics: which metrics there are.
        num_http_threads: what decodes, encodes and compresses large requests; None takes a few, by the machine.
        is_ready_strict: ready only while every model is.
        is_exiting_on_error: a model that fails to load at the start ends the server, and a repository that cannot be
            read; False: neither does; None: the repository alone.
        exit_timeout_seconds: how long requests under way may take when it stops.
        name: what the server calls itself in its metadata.
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
