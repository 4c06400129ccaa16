"""The gRPC port: KServe's service and health checks on grpc.aio, in the running event loop."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import grpc
import grpc.aio

from triune.core.addresses import format_address
from triune.core.errors import UnavailableError
from triune.frontends.access import OPEN, Rules
from triune.frontends.kserve.budget import MemoryBudget
from triune.frontends.kserve.decoder import Decoder
from triune.frontends.kserve.grpc import health as grpc_health
from triune.frontends.kserve.grpc import service as grpc_service
from triune.frontends.kserve.grpc.health import HealthService
from triune.frontends.kserve.grpc.large import LargeMessages
from triune.frontends.kserve.grpc.service import InferenceService
from triune.frontends.kserve.limits import Limits
from triune.frontends.kserve.offload import Offload
from triune.serving.server import Server


class Compression(Enum):
    """How answers are compressed. gRPC has no degrees of it: Triton's three all are gzip, where the client takes it."""

    NONE = "none"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


_COMPRESSIONS = {
    each: grpc.Compression.NoCompression if each is Compression.NONE else grpc.Compression.Gzip for each in Compression
}


@dataclass(frozen=True, slots=True)
class ChannelOptions:
    """What an operator may ask of gRPC's connections: Triton's --grpc-* flags. None leaves Triune's default.

    Attributes:
        compression: of the answers.
        is_port_shared: servers that all say so may listen on one port.
        keepalive_time_ms: when a silent client is pinged.
        keepalive_timeout_ms: how long its answer may take.
        keepalive_permit_without_calls: whether it is pinged without calls under way.
        max_pings_without_data: pings in a row without data between them; 0 is any number.
        min_ping_interval_ms: how soon a client that sends no data may ping again.
        max_ping_strikes: pings that came too soon, until the connection is closed; 0 is any number.
        max_connection_age_ms: how long a connection lives.
        max_connection_age_grace_ms: how long its calls may go on after that.
    """

    compression: Compression = Compression.NONE
    is_port_shared: bool = False
    keepalive_time_ms: int | None = None
    keepalive_timeout_ms: int | None = None
    keepalive_permit_without_calls: bool | None = None
    max_pings_without_data: int | None = None
    min_ping_interval_ms: int | None = None
    max_ping_strikes: int | None = None
    max_connection_age_ms: int | None = None
    max_connection_age_grace_ms: int | None = None


class GrpcServer:
    """Listens for gRPC on one port."""

    def __init__(
        self,
        server: Server,
        host: str = "127.0.0.1",
        port: int = 8001,
        *,
        limits: Limits | None = None,
        budget: MemoryBudget | None = None,
        offload: Offload | None = None,
        channel: ChannelOptions | None = None,
        rules: Rules = OPEN,
    ) -> None:
        """Args:
        server: answers the requests; the caller owns it and stops it after this.
        host: the address to listen on.
        port: the port to listen on; 0 takes a free one.
        limits: what a client may ask. Larger requests, and more at once, get RESOURCE_EXHAUSTED.
        budget: the memory of requests under way, shared with other front ends; None makes its own.
        offload: where large requests are decoded, likewise. The caller closes it; `stop` closes its own.
        channel: what its operator asked of the connections.
        rules: who may call what.
        """
        self._rules = rules
        self._channel = channel or ChannelOptions()
        self._host = host
        self._port = port
        self._limits = limits = limits or Limits()
        self._own_offload = None if offload else Offload()
        offload = offload or self._own_offload or Offload()
        large = LargeMessages(server, Decoder(limits, offload), offload)
        self._service = InferenceService(server, limits, budget or MemoryBudget(), large)
        self._health = HealthService(server)
        self._grpc: grpc.aio.Server | None = None

    async def start(self) -> int:
        """Listen.

        Returns:
            the port.

        Raises:
            UnavailableError: the address is taken or is not this machine's.
        """
        limits = self._limits
        listener = grpc.aio.server(
            options=_options(limits, self._channel),
            compression=_COMPRESSIONS[self._channel.compression],
            maximum_concurrent_rpcs=limits.connections,
        )
        listener.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(grpc_service.SERVICE, self._service.handlers(self._rules)),
                grpc.method_handlers_generic_handler(grpc_health.SERVICE, self._health.handlers(self._rules)),
            )
        )
        address = format_address(self._host, self._port)
        try:
            port = listener.add_insecure_port(address)
        except RuntimeError as error:
            raise UnavailableError(
                f"cannot listen for gRPC on {address}: {error}; choose another port or host"
            ) from error
        await listener.start()
        self._grpc = listener
        return port

    async def stop(self, grace_seconds: float) -> None:
        """Take no new calls, and give those under way `grace_seconds` to finish; then they are cancelled."""
        if self._grpc is None:
            return
        self._service.stop_streams()
        self._health.stop()
        await self._grpc.stop(grace_seconds)
        self._grpc = None
        if self._own_offload is not None:
            self._own_offload.close()


def _options(limits: Limits, channel: ChannelOptions) -> Sequence[tuple[str, int]]:
    """The server's channel arguments. Source: gRPC's keepalive guide."""
    wanted = {
        "grpc.keepalive_time_ms": channel.keepalive_time_ms,
        "grpc.keepalive_timeout_ms": channel.keepalive_timeout_ms,
        "grpc.max_connection_age_ms": channel.max_connection_age_ms,
        "grpc.max_connection_age_grace_ms": channel.max_connection_age_grace_ms,
        # Clients may ping as often as tritonclient's KeepAliveOptions let them; more is no reason to cut them off.
        "grpc.keepalive_permit_without_calls": _or(channel.keepalive_permit_without_calls, 1),
        "grpc.http2.max_pings_without_data": _or(channel.max_pings_without_data, 0),
        "grpc.http2.min_ping_interval_without_data_ms": _or(channel.min_ping_interval_ms, 0),
        "grpc.http2.max_ping_strikes": _or(channel.max_ping_strikes, 0),
    }
    return (
        ("grpc.max_receive_message_length", min(limits.request_bytes, limits.grpc_request_bytes)),
        ("grpc.max_send_message_length", -1),
        # Two servers on one port share its connections: unnoticed, unless both were told to.
        ("grpc.so_reuseport", int(channel.is_port_shared)),
        *((name, int(value)) for name, value in wanted.items() if value is not None),
        # Clients whose connection was closed for being idle open another when they need one, unnoticed.
        ("grpc.max_connection_idle_ms", round(limits.idle_seconds * 1000)),
        ("grpc.server_handshake_timeout_ms", round(limits.receive_seconds * 1000)),
        ("grpc.max_concurrent_streams", limits.streams),
        ("grpc.max_allowed_incoming_connections", limits.connections),
        ("grpc.max_metadata_size", limits.head_bytes),
    )


def _or(given: int | None, default: int) -> int:
    return default if given is None else given
