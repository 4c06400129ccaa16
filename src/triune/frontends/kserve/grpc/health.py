"""The standard health check grpc.health.v1, which load balancers and Kubernetes use."""

import asyncio
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from triune.core.errors import InvalidArgumentError, NotFoundError
from triune.frontends.access import OPEN, Api, Rules
from triune.frontends.kserve.grpc.guard import guarded
from triune.frontends.kserve.grpc.service import SERVICE as INFERENCE_SERVICE
from triune.frontends.kserve.grpc.status import Context, abort, as_triune_error, ended_by_leaving
from triune.frontends.limits import check_small
from triune.serving.server import Server

SERVICE = "grpc.health.v1.Health"

_SERVICES = ("", INFERENCE_SERVICE)

_UNKNOWN, _SERVING, _NOT_SERVING, _SERVICE_UNKNOWN = range(4)


class HealthService:
    """The health service. Its status is SERVING while the server is ready, else NOT_SERVING."""

    def __init__(self, server: Server, *, interval_seconds: float = 1.0) -> None:
        """Args:
        server: the server whose readiness is reported.
        interval_seconds: how often the readiness is checked for watchers.
        """
        self._server = server
        self._interval_seconds = interval_seconds
        self._stopping = asyncio.Event()

    def handlers(self, rules: Rules = OPEN) -> dict[str, Any]:
        """The gRPC handler of each method, guarded by the access `rules`."""
        rule = rules.get(Api.HEALTH)
        return {
            "Check": grpc.unary_unary_rpc_method_handler(guarded(self.check, rule)),
            "Watch": grpc.unary_stream_rpc_method_handler(guarded(self.watch, rule)),
        }

    def stop(self) -> None:
        """Send NOT_SERVING to all watchers and end their calls."""
        self._stopping.set()

    async def check(self, data: bytes, context: Context) -> bytes:
        """Answer a call of Check with the current status. An unknown service gets NOT_FOUND."""
        try:
            service = _parse(data)
        except InvalidArgumentError as error:
            del data
            await abort(context, as_triune_error(error, "Check"))
        if service not in _SERVICES:
            await abort(context, NotFoundError(f"service '{service[:64]}' is not here; ask for '{INFERENCE_SERVICE}'"))
        return _response(self._status(service))

    async def watch(self, data: bytes, context: Context) -> None:
        """Answer a call of Watch: send the current status, and again whenever it changes, until the server stops.

        An unknown service gets SERVICE_UNKNOWN.
        """
        try:
            service = _parse(data)
        except InvalidArgumentError as error:
            del data
            await abort(context, as_triune_error(error, "Watch"))
        del data
        told: int | None = None
        while not self._stopping.is_set():
            status = self._status(service)
            if status != told:
                with ended_by_leaving():
                    await context.write(_response(status))
                told = status
            try:
                await asyncio.wait_for(self._stopping.wait(), self._interval_seconds)
            except TimeoutError:
                continue
        if told != self._status(service):
            with ended_by_leaving():
                await context.write(_response(self._status(service)))

    def _status(self, service: str) -> int:
        if service not in _SERVICES:
            return _SERVICE_UNKNOWN
        return _SERVING if self._server.is_ready() and not self._stopping.is_set() else _NOT_SERVING


def _parse(data: bytes) -> str:
    """The service name in a HealthCheckRequest. Raises InvalidArgumentError if the message is malformed or large."""
    check_small(len(data))
    try:
        return health_pb2.HealthCheckRequest.FromString(data).service
    except DecodeError as error:
        raise InvalidArgumentError(
            f"the {len(data)} bytes received are not a valid HealthCheckRequest: {error}"
        ) from None


def _response(status: int) -> bytes:
    return health_pb2.HealthCheckResponse(status=status).SerializeToString()
