"""The gRPC port: KServe's service and health checks on grpc.aio, in the running event loop."""

from collections.abc import Sequence

import grpc
import grpc.aio

from triune.core.errors import UnavailableError
from triune.frontends.kserve import grpc_health, grpc_service
from triune.frontends.kserve.grpc_health import HealthService
from triune.frontends.kserve.grpc_service import InferenceService
from triune.serving.server import Server

DEFAULT_MAX_REQUEST_BYTES = 256 * 2**20


class GrpcServer:
    """Listens for gRPC on one port."""

    def __init__(
        self,
        server: Server,
        host: str = "127.0.0.1",
        port: int = 8001,
        *,
        max_request_bytes: int = DEFAULT_MAX_REQUEST_BYTES,
    ) -> None:
        """Args:
        server: answers the requests; the caller owns it and stops it after this.
        host: the address to listen on.
        port: the port to listen on; 0 takes a free one.
        max_request_bytes: larger requests get RESOURCE_EXHAUSTED. What a stream has under way is bounded by it too.
        """
        self._host = host
        self._port = port
        self._max_request_bytes = max_request_bytes
        self._service = InferenceService(server, max_request_bytes=max_request_bytes)
        self._health = HealthService(server)
        self._grpc: grpc.aio.Server | None = None

    async def start(self) -> int:
        """Listen.

        Returns:
            the port.

        Raises:
            UnavailableError: the address is taken or is not this machine's.
        """
        listener = grpc.aio.server(options=_options(self._max_request_bytes))
        listener.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(grpc_service.SERVICE, self._service.handlers()),
                grpc.method_handlers_generic_handler(grpc_health.SERVICE, self._health.handlers()),
            )
        )
        host = f"[{self._host}]" if ":" in self._host else self._host
        try:
            port = listener.add_insecure_port(f"{host}:{self._port}")
        except RuntimeError as error:
            raise UnavailableError(
                f"cannot listen for gRPC on {host}:{self._port}: {error}; choose another port or host"
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


def _options(max_request_bytes: int) -> Sequence[tuple[str, int]]:
    """The server's channel arguments. Source: gRPC's keepalive guide, and Triton's defaults."""
    return (
        ("grpc.max_receive_message_length", max_request_bytes),
        ("grpc.max_send_message_length", -1),
        # Two servers on one port would share its connections unnoticed.
        ("grpc.so_reuseport", 0),
        # Clients may ping as often as tritonclient's KeepAliveOptions let them; more is no reason to cut them off.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 0),
        ("grpc.http2.max_ping_strikes", 0),
    )
