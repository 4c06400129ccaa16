"""The gRPC server: KServe's service and the health service on grpc.aio, in the running event loop."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import grpc
import grpc.aio

from triune.core.addresses import format_address
from triune.core.errors import UnavailableError
from triune.frontends.access import OPEN, Rules
from triune.frontends.bodies.budget import MemoryBudget
from triune.frontends.bodies.decoder import Decoder
from triune.frontends.bodies.offload import Offload
from triune.frontends.kserve.grpc import health as grpc_health
from triune.frontends.kserve.grpc import service as grpc_service
from triune.frontends.kserve.grpc.health import HealthService
from triune.frontends.kserve.grpc.large import LargeMessages
from triune.frontends.kserve.grpc.relay import CALL, Relay
from triune.frontends.kserve.grpc.service import InferenceService
from triune.frontends.limits import Limits
from triune.serving.server import Server

_log = logging.getLogger(__name__)

NUM_DESCRIPTORS = 3
"""The number of file descriptors of a connection: one to the client, and both ends of the relay's connection to gRPC's
library.
"""


class Compression(Enum):
    """Compression of responses, by Triton's names: `low`, `medium` and `high` all mean gzip, if the client accepts it.

    gRPC's Python API has no compression levels.
    """

    NONE = "none"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


_COMPRESSIONS = {
    each: grpc.Compression.NoCompression if each is Compression.NONE else grpc.Compression.Gzip for each in Compression
}

_CALL = CALL.decode()


@dataclass(frozen=True, slots=True)
class ChannelOptions:
    """Options of gRPC connections, for Triton's --grpc-* flags. None takes Triune's default.

    Attributes:
        compression: the compression of responses.
        is_port_shared: set SO_REUSEPORT, so that several servers can share the port.
        keepalive_time_ms: the server pings a client after this time without activity.
        keepalive_timeout_ms: the connection is closed if the ping is not answered within this time.
        keepalive_permit_without_calls: whether to ping also when no call is under way.
        max_pings_without_data: the largest number of keepalive pings that the server sends in a row while it sends no
            other data; 0 is unlimited.
        min_ping_interval_ms: the shortest allowed time between a client's pings without data.
        max_ping_strikes: the connection is closed after this many pings that came too early; 0 is never.
        max_connection_age_ms: how long a connection may exist.
        max_connection_age_grace_ms: how long its calls may continue after that.
        has_relay: whether clients reach gRPC's library through `relay`, which protects other clients from one that
            sends too many frames.
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
    has_relay: bool = True


class GrpcServer:
    """Serves gRPC on one port."""

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
        limits: the limits on requests and connections. Larger or more requests get RESOURCE_EXHAUSTED.
        budget: the memory budget, shared with other front ends; None makes one for this server.
        offload: the threads and processes for large requests, shared with other front ends; None makes one for
            this server. `stop` closes only one that this server made; the caller closes another.
        channel: the connection options.
        rules: the access rules.
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
        self._libraries: list[grpc.aio.Server] = []
        self._relay: Relay | None = None

    async def start(self) -> int:
        """Listen.

        Returns:
            the port.

        Raises:
            UnavailableError: the address is taken or is not this machine's.
        """
        self._relay = relay = Relay(self._limits, self._listen) if self._channel.has_relay else None
        address = format_address(self._host, self._port) if relay is None else relay.address
        try:
            port = await self._listen(address)
            if relay is not None:
                port = await relay.start(self._host, self._port, is_shared=self._channel.is_port_shared)
            else:
                _log.warning(
                    "gRPC is served without its relay (--grpc-relay=false): any client can delay others, or end the "
                    "port; let only trusted clients reach it"
                )
        except RuntimeError as error:
            await self.stop(0)
            raise UnavailableError(
                f"cannot listen for gRPC on {address}: {error}; choose another port or host"
            ) from error
        except BaseException:
            await self.stop(0)
            raise
        return port

    async def stop(self, grace_seconds: float) -> None:
        """Accept no new calls, and cancel those that are not finished after `grace_seconds`."""
        if not self._libraries:
            return
        relay = self._relay
        if relay is not None:
            relay.stop_listening()
        self._service.stop_streams()
        self._health.stop()
        await asyncio.gather(*(each.stop(grace_seconds) for each in self._libraries))
        if relay is not None:
            await relay.close()
        self._libraries.clear()
        self._relay = None
        if self._own_offload is not None:
            self._own_offload.close()

    async def _listen(self, address: str) -> int:
        """Have gRPC's library listen. Returns the port.

        Raises:
            RuntimeError: it cannot listen on this address.
        """
        relay = self._relay
        library = grpc.aio.server(
            options=_options(self._limits, self._channel),
            compression=_COMPRESSIONS[self._channel.compression],
            # With the relay, gRPC's library needs no limit on calls: the relay has one.
            maximum_concurrent_rpcs=None if relay is not None else self._limits.calls,
        )
        self._libraries.append(library)
        library.add_generic_rpc_handlers(
            (
                *([_Arrivals(relay)] if relay is not None else []),
                grpc.method_handlers_generic_handler(grpc_service.SERVICE, self._service.handlers(self._rules)),
                grpc.method_handlers_generic_handler(grpc_health.SERVICE, self._health.handlers(self._rules)),
            )
        )
        port = library.add_insecure_port(address)
        await library.start()
        return port


class _Arrivals(grpc.GenericRpcHandler):
    """A handler that handles no calls, but notifies the relay of each call that gRPC's library passes on."""

    def __init__(self, relay: Relay) -> None:
        self._turns = relay.turns

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> None:
        # Search from the end, where the relay has added its header: the client may have sent one of the same name.
        for name, value in reversed(handler_call_details.invocation_metadata):
            if name == _CALL:
                self._turns.arrive(int(value))
                return


def _options(limits: Limits, channel: ChannelOptions) -> Sequence[tuple[str, int]]:
    """The server's channel arguments. Source: gRPC's keepalive guide."""
    wanted = {
        "grpc.keepalive_time_ms": channel.keepalive_time_ms,
        "grpc.keepalive_timeout_ms": channel.keepalive_timeout_ms,
        "grpc.max_connection_age_ms": channel.max_connection_age_ms,
        "grpc.max_connection_age_grace_ms": channel.max_connection_age_grace_ms,
        # Never close a connection because of frequent pings, which tritonclient's KeepAliveOptions allow.
        "grpc.keepalive_permit_without_calls": _or(channel.keepalive_permit_without_calls, 1),
        "grpc.http2.max_pings_without_data": _or(channel.max_pings_without_data, 0),
        "grpc.http2.min_ping_interval_without_data_ms": _or(channel.min_ping_interval_ms, 0),
        "grpc.http2.max_ping_strikes": _or(channel.max_ping_strikes, 0),
    }
    direct = (
        # Turn off SO_REUSEPORT unless the port is to be shared: gRPC sets it by default, and a second server on the
        # port would then get half of the connections, without an error.
        ("grpc.so_reuseport", int(channel.is_port_shared)),
        ("grpc.max_allowed_incoming_connections", limits.connections),
    )
    return (
        *(() if channel.has_relay else direct),
        ("grpc.max_receive_message_length", min(limits.request_bytes, limits.grpc_request_bytes)),
        ("grpc.max_send_message_length", -1),
        *((name, int(value)) for name, value in wanted.items() if value is not None),
        # Close idle connections, which does no harm: a gRPC client opens a new one when it needs it.
        ("grpc.max_connection_idle_ms", round(limits.idle_seconds * 1000)),
        ("grpc.server_handshake_timeout_ms", round(limits.receive_seconds * 1000)),
        ("grpc.max_concurrent_streams", limits.streams),
        ("grpc.max_metadata_size", limits.head_bytes),
    )


def _or(given: int | None, default: int) -> int:
    return default if given is None else given
