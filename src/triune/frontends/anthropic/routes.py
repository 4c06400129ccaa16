"""The endpoints of Anthropic's API."""

from starlette.requests import Request
from starlette.responses import Response

from triune.frontends.access import Api
from triune.frontends.anthropic.errors import answer_error, error_event
from triune.frontends.anthropic.messages import MessageAnswer
from triune.frontends.anthropic.requests import read_count, read_messages
from triune.frontends.bodies.event_streams import while_connected
from triune.frontends.bodies.reader import BodyReader
from triune.frontends.bodies.responses import JsonResponse
from triune.frontends.routes import ApiRoute, otherwise
from triune.frontends.text.chat import chat_prompt
from triune.frontends.text.models import TextModels, text_model_of
from triune.frontends.text.reading import read_body
from triune.frontends.text.responding import begin_chat, respond


def anthropic_routes(models: TextModels, bodies: BodyReader) -> list[ApiRoute]:
    """Make the routes of `messages` and `messages/count_tokens`.

    Args:
        models: gives the models that generate text, by name.
        bodies: reads and parses request bodies.
    """
    ends = _Endpoints(models, bodies)
    routes = [
        ApiRoute(Api.INFERENCE, path, endpoint, ("POST",), answer_error, "x-api-key")
        for path, endpoint in (("/v1/messages", ends.create), ("/v1/messages/count_tokens", ends.count))
    ]
    others = [otherwise(path, routes, answer_error) for path in ("/v1/messages", "/v1/messages/{rest:path}")]
    return [*routes, *others]


class _Endpoints:
    def __init__(self, models: TextModels, bodies: BodyReader) -> None:
        self._models = models
        self._bodies = bodies

    async def create(self, request: Request) -> Response:
        held = self._bodies.reserve()
        try:
            asked = await read_body(self._bodies, request, read_messages, held)
            model, adapter = await text_model_of(self._models, asked.model)
            parts, num_prompt_tokens = await begin_chat(
                request,
                model,
                asked.chat,
                asked.generation,
                adapter,
                held,
                has_parallel_calls=asked.has_parallel_calls,
            )
            answer = MessageAnswer(asked, model.placement, num_prompt_tokens)
            return await respond(request, answer, parts, held, error_event, is_stream=asked.is_stream)
        except BaseException:
            held.release()
            raise

    async def count(self, request: Request) -> Response:
        with self._bodies.reserve() as held:
            asked = await read_body(self._bodies, request, read_count, held)
            model, _ = await text_model_of(self._models, asked.model)
            prompt = await while_connected(request, chat_prompt(model, asked.chat))
        return JsonResponse({"input_tokens": len(prompt.tokens)})
