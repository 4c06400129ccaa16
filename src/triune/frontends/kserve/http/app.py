"""The Starlette app with the HTTP endpoints of KServe and Triton, except for inference.

`protocol`, the HTTP connection, answers inference requests itself.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from triune.core.errors import InvalidArgumentError, NotFoundError, TriuneError, UnsupportedError, forget_frames
from triune.core.power import mode_of
from triune.core.printable import cut, printable
from triune.frontends.access import CHALLENGE, OPEN, Api, Rules
from triune.frontends.bodies.json_values import as_bool, as_object, json_name
from triune.frontends.bodies.offload import Offload
from triune.frontends.bodies.reader import BodyReader
from triune.frontends.bodies.responses import JsonResponse
from triune.frontends.defects import defect
from triune.frontends.kserve import descriptions
from triune.frontends.kserve.http.generate import Generate
from triune.frontends.kserve.http.load import parse_load
from triune.frontends.kserve.http.statuses import error_body, retry_after, status_of
from triune.frontends.kserve.http.versions import version_of
from triune.frontends.kserve.large_tensors import files_of, memory_bytes
from triune.frontends.kserve.placements import placements
from triune.frontends.routes import ApiRoute, Endpoint
from triune.hardware.facts import units_json
from triune.serving.server import Server

_MODEL = "/v2/models/{model}"
_VERSION = _MODEL + "/versions/{version}"
_REPOSITORY = "/v2/repository"
_NAMED_REPOSITORY = "/v2/repository/{repository}"

# Endpoints of Triton that this server does not support, and what to do instead.
_UNSUPPORTED = {
    "/v2/systemsharedmemory/{rest:path}": (Api.SHARED_MEMORY, "system shared memory: send tensors in the request"),
    "/v2/cudasharedmemory/{rest:path}": (Api.SHARED_MEMORY, "CUDA shared memory: send tensors in the request"),
    "/v2/trace/setting": (Api.TRACE, "trace settings"),
    "/v2/models/{model}/trace/setting": (Api.TRACE, "trace settings"),
    "/v2/logging": (Api.LOGGING, "log settings over the network: use --log-verbose"),
}


def make_app(
    server: Server,
    bodies: BodyReader,
    offload: Offload,
    *,
    rules: Rules = OPEN,
    more_routes: Sequence[ApiRoute] = (),
) -> Starlette:
    """Make the app.

    Args:
        server: the server.
        bodies: reads and parses request bodies.
        offload: the threads that encode large responses.
        rules: the access rules.
        more_routes: routes of other front ends on the same port, guarded by the same rules.
    """
    front = _Endpoints(server, bodies, offload)
    generate = Generate(server, bodies, offload)

    def get(api: Api, path: str, endpoint: Endpoint) -> ApiRoute:
        return ApiRoute(api, path, endpoint)

    def post(api: Api, path: str, endpoint: Endpoint) -> ApiRoute:
        return ApiRoute(api, path, endpoint, ("POST",))

    routes = [
        get(Api.METADATA, "/v2", front.server_metadata),
        get(Api.METADATA, "/v2/units", front.units),
        get(Api.STATISTICS, "/v2/placement", front.placement),
        get(Api.POWER, "/v2/power", front.power),
        post(Api.POWER, "/v2/power", front.ask_power),
        get(Api.HEALTH, "/v2/health/live", front.live),
        get(Api.HEALTH, "/v2/health/ready", front.ready),
        get(Api.STATISTICS, "/v2/models/stats", front.statistics),
        post(Api.MODEL_REPOSITORY, _REPOSITORY + "/index", front.index),
        post(Api.MODEL_REPOSITORY, _NAMED_REPOSITORY + "/index", front.index),
        post(Api.MODEL_REPOSITORY, _REPOSITORY + "/models/{model}/load", front.load),
        post(Api.MODEL_REPOSITORY, _REPOSITORY + "/models/{model}/unload", front.unload),
        post(Api.MODEL_REPOSITORY, _NAMED_REPOSITORY + "/models/{model}/load", front.named_repository),
        post(Api.MODEL_REPOSITORY, _NAMED_REPOSITORY + "/models/{model}/unload", front.named_repository),
    ]
    for path, (api, what) in _UNSUPPORTED.items():
        routes.append(ApiRoute(api, path, _refuse(what), ("GET", "POST")))
    for model in (_MODEL, _VERSION):
        routes += [
            get(Api.METADATA, model, front.model_metadata),
            get(Api.HEALTH, model + "/ready", front.model_ready),
            get(Api.MODEL_CONFIG, model + "/config", front.model_config),
            get(Api.STATISTICS, model + "/stats", front.statistics),
            get(Api.STATISTICS, model + "/placement", front.placement),
            post(Api.INFERENCE, model + "/generate", generate.generate),
            post(Api.INFERENCE, model + "/generate_stream", generate.generate_stream),
            # The connection answers POST itself. This route exists so that other methods get 405, not 404.
            post(Api.INFERENCE, model + "/infer", front.infer),
        ]
    handlers: Mapping[Any, Any] = {
        TriuneError: _answer_error,
        HTTPException: _answer_http_error,
        ClientDisconnect: _answer_disconnected,
        Exception: _answer_defect,
    }
    guarded = [each.guarded(rules) for each in (*routes, *more_routes)]
    app = Starlette(routes=guarded, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return app


class _Endpoints:
    def __init__(self, server: Server, bodies: BodyReader, offload: Offload) -> None:
        self._server = server
        self._bodies = bodies
        self._offload = offload

    async def server_metadata(self, request: Request) -> Response:
        return JsonResponse(descriptions.server_metadata(self._server))

    async def power(self, request: Request) -> Response:
        return JsonResponse(descriptions.power(self._server.power), headers={"Cache-Control": "no-store"})

    async def ask_power(self, request: Request) -> Response:
        document = await self._bodies.small_object(request)
        if unknown := sorted(document.keys() - {"mode"}):
            raise InvalidArgumentError(f"the field '{printable(unknown[0][:64])}' is unknown; there is 'mode'")
        self._server.power.ask(mode_of(document.get("mode")))
        return await self.power(request)

    async def units(self, request: Request) -> Response:
        return JsonResponse(units_json(await self._server.units()), headers={"Cache-Control": "no-store"})

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
        return JsonResponse(self._server.config(*_model_of(request)).json)

    async def statistics(self, request: Request) -> Response:
        name = request.path_params.get("model", "")
        models = self._server.statistics(name, version_of(request))
        return JsonResponse(descriptions.statistics_with_energy(models))

    async def placement(self, request: Request) -> Response:
        name = request.path_params.get("model", "")
        models = self._server.statistics(name, version_of(request))
        return JsonResponse(placements(models), headers={"Cache-Control": "no-store"})

    async def index(self, request: Request) -> Response:
        document = await self._bodies.small_object(request)
        is_ready_only = document.get("ready", False)
        if not isinstance(is_ready_only, bool):
            raise InvalidArgumentError(f"Invalid value for 'ready': expected a boolean, not {json_name(is_ready_only)}")
        return JsonResponse(descriptions.repository_index(await self._server.index(is_ready_only=is_ready_only)))

    async def load(self, request: Request) -> Response:
        with self._bodies.reserve() as held:
            config_json, arrays = await self._bodies.parse(request, parse_load, held, are_strings=True)
            files = await self._offload.run_sized(memory_bytes(arrays), files_of, arrays) if arrays else {}
            del arrays
            await self._server.load(request.path_params["model"], config_json=config_json, files=files)
        return Response()

    async def unload(self, request: Request) -> Response:
        document = await self._bodies.small_object(request)
        parameters = as_object(document.get("parameters", {}), "'parameters'")
        unload_dependents = as_bool(parameters.get("unload_dependents", False), "'unload_dependents'")
        await self._server.unload(request.path_params["model"], unload_dependents=unload_dependents)
        return Response()

    async def named_repository(self, request: Request) -> Response:
        raise UnsupportedError("a repository cannot be named: leave the name out of the path")

    async def infer(self, request: Request) -> Response:
        # The connection itself answers valid inference paths. If this route is reached, the version in the path is not
        # a number, and `version_of` raises the error.
        version_of(request)
        raise NotFoundError("this is not a path of inference requests")


def _model_of(request: Request) -> tuple[str, int | None]:
    return request.path_params["model"], version_of(request)


def _refuse(what: str) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        raise UnsupportedError(f"this server does not offer {what}")

    return endpoint


async def _answer_error(request: Request, error: TriuneError) -> Response:
    forget_frames(error)
    status = status_of(error)
    headers: dict[str, str] = {}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(retry_after(error))
    elif status == HTTPStatus.UNAUTHORIZED:
        headers |= CHALLENGE
    return JsonResponse(error_body(str(error)), status_code=status, headers=headers)


async def _answer_http_error(request: Request, error: HTTPException) -> Response:
    path, message = printable(cut(request.url.path, 256)), error.detail
    if error.status_code == HTTPStatus.NOT_FOUND:
        message += f": there is no path '{path}'"
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        message += (
            f": the path '{path}' takes {(error.headers or {}).get('Allow')}, not {printable(request.method[:16])}"
        )
    return JsonResponse(error_body(message), status_code=error.status_code, headers=error.headers)


async def _answer_disconnected(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=400)


async def _answer_defect(request: Request, error: Exception) -> Response:
    # Do not log the error here: after this response, Starlette raises it again, and uvicorn logs it.
    internal = defect(error)
    return JsonResponse(error_body(str(internal)), status_code=status_of(internal))
