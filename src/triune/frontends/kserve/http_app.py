"""Everything that KServe and Triton serve over HTTP but the inference itself, as a Starlette app."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from triune.core.errors import InvalidArgumentError, NotFoundError, TriuneError, UnsupportedError
from triune.frontends.kserve import descriptions
from triune.frontends.kserve.generate import Generate
from triune.frontends.kserve.http_body import JsonResponse, read_object, version_of
from triune.frontends.kserve.http_infer import defect
from triune.frontends.kserve.http_parameters import as_bool, as_object, as_string
from triune.frontends.kserve.statuses import error_body, status_of
from triune.serving.server import Server

_MODEL = "/v2/models/{model}"
_VERSION = _MODEL + "/versions/{version}"
_REPOSITORY = "/v2/repository"
_NAMED_REPOSITORY = "/v2/repository/{repository}"

# What Triton serves and this server does not, and what to do instead.
_UNSUPPORTED = {
    "/v2/systemsharedmemory/{rest:path}": "system shared memory: send tensors in the request",
    "/v2/cudasharedmemory/{rest:path}": "CUDA shared memory: send tensors in the request",
    "/v2/trace/setting": "trace settings",
    "/v2/models/{model}/trace/setting": "trace settings",
    "/v2/logging": "log settings over the network: use --log-verbose",
}


def make_app(server: Server, *, max_request_bytes: int, more_routes: Sequence[BaseRoute] = ()) -> Starlette:
    """The app.

    Args:
        server: what it serves.
        max_request_bytes: the largest body it takes, as it comes and decompressed.
        more_routes: routes of other front ends on the same port.
    """
    front = _Endpoints(server, max_request_bytes)
    generate = Generate(server, max_request_bytes)
    routes: list[BaseRoute] = [
        Route("/v2", front.server_metadata),
        Route("/v2/health/live", front.live),
        Route("/v2/health/ready", front.ready),
        Route("/v2/models/stats", front.statistics),
        Route(_REPOSITORY + "/index", front.index, methods=["POST"]),
        Route(_NAMED_REPOSITORY + "/index", front.index, methods=["POST"]),
        Route(_REPOSITORY + "/models/{model}/load", front.load, methods=["POST"]),
        Route(_REPOSITORY + "/models/{model}/unload", front.unload, methods=["POST"]),
        Route(_NAMED_REPOSITORY + "/models/{model}/load", front.named_repository, methods=["POST"]),
        Route(_NAMED_REPOSITORY + "/models/{model}/unload", front.named_repository, methods=["POST"]),
    ]
    for path, what in _UNSUPPORTED.items():
        routes.append(Route(path, _refuse(what), methods=["GET", "POST"]))
    for model in (_MODEL, _VERSION):
        routes += [
            Route(model, front.model_metadata),
            Route(model + "/ready", front.model_ready),
            Route(model + "/config", front.model_config),
            Route(model + "/stats", front.statistics),
            Route(model + "/generate", generate.generate, methods=["POST"]),
            Route(model + "/generate_stream", generate.generate_stream, methods=["POST"]),
            # The connection answers POST itself: this says which methods there are.
            Route(model + "/infer", front.infer, methods=["POST"]),
        ]
    handlers: Mapping[Any, Any] = {
        TriuneError: _answer_error,
        HTTPException: _answer_http_error,
        ClientDisconnect: _answer_nobody,
        Exception: _answer_defect,
    }
    app = Starlette(routes=[*routes, *more_routes], exception_handlers=handlers)
    app.router.redirect_slashes = False
    return app


class _Endpoints:
    def __init__(self, server: Server, max_request_bytes: int) -> None:
        self._server = server
        self._max_request_bytes = max_request_bytes

    async def server_metadata(self, request: Request) -> Response:
        return JsonResponse(descriptions.server_metadata(self._server))

    async def live(self, request: Request) -> Response:
        return Response(status_code=200 if self._server.is_live() else 400)

    async def ready(self, request: Request) -> Response:
        return Response(status_code=200 if self._server.is_ready() else 400)

    async def model_ready(self, request: Request) -> Response:
        if self._server.is_model_ready(*_model_of(request)):
            return Response()
        return JsonResponse(error_body("Model version not ready"), status_code=400)

    async def model_metadata(self, request: Request) -> Response:
        name, version = _model_of(request)
        config = self._server.config(name, version)
        versions = self._server.versions(name) if version is None else [version]
        return JsonResponse(descriptions.model_metadata(config, versions))

    async def model_config(self, request: Request) -> Response:
        return JsonResponse(descriptions.model_config(self._server.config(*_model_of(request))))

    async def statistics(self, request: Request) -> Response:
        name = request.path_params.get("model", "")
        models = self._server.statistics(name, version_of(request))
        return JsonResponse(descriptions.statistics(models))

    async def index(self, request: Request) -> Response:
        document = await read_object(request, self._max_request_bytes)
        is_ready_only = as_bool(document.get("ready", False), "'ready'")
        return JsonResponse(descriptions.repository_index(self._server.index(is_ready_only=is_ready_only)))

    async def load(self, request: Request) -> Response:
        config_json: str | None = None
        files: dict[str, bytes] = {}
        for name, value in (await self._parameters(request)).items():
            text = as_string(value, f"parameter '{name[:64]}'")
            if name == "config":
                config_json = text
            elif name.startswith("file:"):
                files[name.removeprefix("file:")] = _decode_base64(name, text)
            else:
                raise InvalidArgumentError(f"load takes the parameters 'config' and 'file:<path>', not '{name[:64]}'")
        await self._server.load(request.path_params["model"], config_json=config_json, files=files)
        return Response()

    async def unload(self, request: Request) -> Response:
        parameters = await self._parameters(request)
        unload_dependents = as_bool(parameters.get("unload_dependents", False), "'unload_dependents'")
        await self._server.unload(request.path_params["model"], unload_dependents=unload_dependents)
        return Response()

    async def named_repository(self, request: Request) -> Response:
        raise UnsupportedError("a repository cannot be named: leave the name out of the path")

    async def infer(self, request: Request) -> Response:
        # The connection answers what names a model and a number; this is the error of what does not.
        version_of(request)
        raise NotFoundError("this path is no inference")

    async def _parameters(self, request: Request) -> dict[str, Any]:
        document = await read_object(request, self._max_request_bytes)
        return as_object(document.get("parameters", {}), "'parameters'")


def _model_of(request: Request) -> tuple[str, int | None]:
    return request.path_params["model"], version_of(request)


def _decode_base64(name: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidArgumentError(f"parameter '{name[:64]}' is not valid base64: {error}") from None


def _refuse(what: str) -> Any:
    async def endpoint(request: Request) -> Response:
        raise UnsupportedError(f"this server does not offer {what}")

    return endpoint


async def _answer_error(request: Request, error: TriuneError) -> Response:
    return JsonResponse(error_body(str(error)), status_code=status_of(error))


async def _answer_http_error(request: Request, error: HTTPException) -> Response:
    return JsonResponse(error_body(error.detail), status_code=error.status_code, headers=error.headers)


async def _answer_nobody(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=400)


async def _answer_defect(request: Request, error: Exception) -> Response:
    # Starlette raises it again after this answer, and uvicorn logs it.
    internal = defect(error)
    return JsonResponse(error_body(str(internal)), status_code=status_of(internal))
