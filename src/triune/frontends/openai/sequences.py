"""Moves running answers from one server to another (`sequences/{id}/export` and `sequences/import`), or from one unit
of their model to another (`sequences/{id}/migrate`), or all that a unit computes (`models/{model}/drain`).

The stream at the first server ends with the finish reason `moved`. The bytes that `export` returns are the body of
`import`, whose response streams the remaining answer, in the format of the API of the first request.
"""

import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from triune.core.errors import InvalidArgumentError, NotFoundError, TriuneError, UnsupportedError
from triune.core.printable import printable
from triune.core.units import Unit
from triune.engine.generation import Delta
from triune.engine.moving.movable import MovableTextModel
from triune.engine.moving.wire import MovedAnswer, decode, encode, memory_of
from triune.engine.tools.pieces import Text
from triune.frontends.access import Api
from triune.frontends.bodies.budget import Reservation
from triune.frontends.bodies.event_streams import while_connected
from triune.frontends.bodies.offload import Offload
from triune.frontends.bodies.reader import BodyReader
from triune.frontends.bodies.responses import HeldResponse
from triune.frontends.openai.chats import CHAT_PREFIX, ChatAnswer
from triune.frontends.openai.completions import CompletionAnswer
from triune.frontends.openai.errors import answer_error, error_event
from triune.frontends.openai.requests import TextRequest
from triune.frontends.routes import ApiRoute
from triune.frontends.text.answers import Part, check_end
from triune.frontends.text.chat import TOKEN_BYTES
from triune.frontends.text.models import TextModels, text_model_of
from triune.frontends.text.responding import respond

_MOST_REASON: Final = 200


def sequence_routes(models: TextModels, bodies: BodyReader, offload: Offload) -> list[ApiRoute]:
    """Make the HTTP routes that export, import and migrate running answers, and drain units of models.

    Args:
        models: the models that generate text, and the answers that they are generating.
        bodies: reads request bodies.
        offload: the threads that write and read the bytes of sequences.
    """
    ends = _Endpoints(models, bodies, offload)
    return [
        ApiRoute(Api.INFERENCE, "/v1/sequences/{id}/export", ends.export, ("POST",), answer_error),
        ApiRoute(Api.INFERENCE, "/v1/sequences/{id}/migrate", ends.migrate, ("POST",), answer_error),
        ApiRoute(Api.INFERENCE, "/v1/sequences/import", ends.import_, ("POST",), answer_error),
        ApiRoute(Api.MODEL_REPOSITORY, "/v1/models/{model}/drain", ends.drain, ("POST",), answer_error),
    ]


class SequenceResponse(HeldResponse):
    """A response with the bytes of an exported answer."""

    media_type = "application/octet-stream"


class _Endpoints:
    def __init__(self, models: TextModels, bodies: BodyReader, offload: Offload) -> None:
        self._models = models
        self._bodies = bodies
        self._offload = offload

    async def export(self, request: Request) -> Response:
        if unknown := [*await self._bodies.small_object(request), *request.query_params]:
            raise InvalidArgumentError(f"'{printable(unknown[0][:64])}' is unknown: an export takes no options")
        held = self._bodies.reserve()
        try:
            encoded = await self._exported(request.path_params["id"], held)
            held.resize(sum(map(len, encoded)))
        except BaseException:
            held.release()
            raise
        return SequenceResponse(encoded, held)

    async def migrate(self, request: Request) -> Response:
        request_id = request.path_params["id"]
        unit, _ = await self._unit(request, "a migration")
        await self._holder(request_id).move(request_id, unit)
        return JSONResponse({"id": request_id, "unit": unit.value})

    async def drain(self, request: Request) -> Response:
        unit, given = await self._unit(request, "to drain a unit", "drained", "reason")
        drained, reason = given.get("drained", True), given.get("reason", "it is drained")
        if not isinstance(drained, bool):
            raise InvalidArgumentError("'drained' must be true or false")
        if not isinstance(reason, str) or not 0 < len(reason) <= _MOST_REASON:
            raise InvalidArgumentError(f"'reason' must be a text of 1 to {_MOST_REASON} characters")
        name = request.path_params["model"]
        model = await self._movable(name)
        num_answers = model.set_drained(unit, printable(reason) if drained else "")
        return JSONResponse({"model": name, "unit": unit.value, "drained": drained, "answers": num_answers})

    async def _unit(self, request: Request, what: str, *more: str) -> tuple[Unit, Mapping[str, Any]]:
        """Read a body with the field `unit`; `more` are further fields that it may have, which are returned with it."""
        given = await self._bodies.small_object(request)
        unknown = [*(given.keys() - {"unit", *more}), *request.query_params]
        unit = next((each for each in Unit if each.value == given.get("unit")), None)
        if unknown or unit is None:
            raise InvalidArgumentError(
                f"{what} takes 'unit', one of {', '.join(each.value for each in Unit)}"
                + (f"; '{printable(unknown[0][:64])}' is unknown" if unknown else "")
            )
        return unit, given

    async def _exported(self, request_id: str, held: Reservation) -> Sequence[bytes]:
        # This is a function of its own so that the exported state is freed when it returns: only the bytes are kept.
        moved = await self._holder(request_id).export(request_id, held.grow)
        return await self._offload.run_sized(moved.state.cached.num_bytes, encode, moved)

    def _holder(self, request_id: str) -> MovableTextModel:
        for name in dict.fromkeys(entry.name for entry in self._models.last_index(is_ready_only=True)):
            with contextlib.suppress(TriuneError):
                model = self._models.text_model(name)
                if isinstance(model, MovableTextModel) and model.holds(request_id):
                    return model
        raise NotFoundError(
            f"no stream of one answer with the id '{printable(request_id[:64])}' is under way here: it may have ended"
        )

    async def import_(self, request: Request) -> Response:
        is_stream, has_usage = _options(request)
        held = self._bodies.reserve()
        try:
            moved = await self._imported(request, held)
            model = await self._movable(moved.model)
            text = TextRequest(moved.model, moved.request, is_stream, has_usage)
            is_chat = moved.request.id.startswith(CHAT_PREFIX)
            answer = (ChatAnswer if is_chat else CompletionAnswer)(text, model.placement)
            num_tokens = len(moved.state.prompt) + len(moved.state.answer)
            parts = _parts(model.resume(moved))
            response = await respond(request, answer, parts, held, error_event, is_stream=is_stream)
            if is_stream:
                # When `respond` returns a stream, the first event has come: the keys and values are in the model's
                # cache, so that only the memory of the tokens stays reserved.
                held.resize(TOKEN_BYTES * num_tokens)
            return response
        except BaseException:
            held.release()
            raise

    async def _movable(self, name: str) -> MovableTextModel:
        model, _ = await text_model_of(self._models, name)
        if not isinstance(model, MovableTextModel):
            raise UnsupportedError(f"answers of model '{name[:128]}' cannot be moved")
        return model

    async def _imported(self, request: Request, held: Reservation) -> MovedAnswer:
        if request.headers.get("content-encoding", "identity") != "identity":
            raise UnsupportedError("the body of an import may not be compressed: send it as it was exported")
        body = bytearray()
        async for piece in self._bodies.pieces(request, held):
            body += piece
        held.resize(memory_of(len(body)))
        return await while_connected(request, self._offload.run_sized(len(body), decode, memoryview(body)))


def _options(request: Request) -> tuple[bool, bool]:
    """The options in the query of an import: whether to stream, and whether to report the usage."""
    given = {"stream": "true", "include_usage": "false"}
    for name, value in request.query_params.multi_items():
        if name not in given or value not in ("true", "false"):
            raise InvalidArgumentError(
                f"'{printable(name[:64])}={printable(value[:64])}' is unknown: an import takes 'stream' and "
                "'include_usage', each true or false"
            )
        given[name] = value
    return given["stream"] == "true", given["include_usage"] == "true"


async def _parts(deltas: AsyncGenerator[Delta]) -> AsyncGenerator[Part]:
    async with contextlib.aclosing(deltas):
        async for delta in deltas:
            check_end(delta)
            yield Part(0, [Text(delta.text)] if delta.text else [], delta)
