"""The endpoints of OpenAI's API."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from triune.core.energy import Bill
from triune.core.errors import InvalidArgumentError, NotFoundError, TriuneError, UnsupportedError
from triune.engine.generation import Generation, TextModel
from triune.engine.speech.audio import DECODING_BYTES
from triune.frontends.access import Api
from triune.frontends.bodies.event_streams import open_stream, while_connected
from triune.frontends.bodies.offload import Offload
from triune.frontends.bodies.reader import BodyReader
from triune.frontends.bodies.responses import HeldResponse, JsonResponse
from triune.frontends.openai.chats import CHAT_PREFIX, ChatAnswer
from triune.frontends.openai.choices import identified
from triune.frontends.openai.completions import COMPLETION_PREFIX, CompletionAnswer
from triune.frontends.openai.echo import echoed
from triune.frontends.openai.embeddings import embedding_bytes, embedding_report, encode_embeddings
from triune.frontends.openai.errors import answer_error, error_event
from triune.frontends.openai.forms import read_form
from triune.frontends.openai.requests import (
    CompletionRequest,
    read_chat,
    read_completion,
    read_embedding,
)
from triune.frontends.openai.response_requests import read_response
from triune.frontends.openai.responses import ResponseAnswer
from triune.frontends.openai.sequences import sequence_routes
from triune.frontends.openai.speech_requests import read_transcription
from triune.frontends.openai.transcripts import Transcript
from triune.frontends.routes import ApiRoute, Endpoint, otherwise
from triune.frontends.text.answers import parts_of
from triune.frontends.text.chat import TOKEN_BYTES, with_prompt
from triune.frontends.text.models import TextModels, embedding_model_of, speech_model_of, text_model_of, unknown_model
from triune.frontends.text.reading import read_body
from triune.frontends.text.responding import begin_chat, closing, respond


def openai_routes(models: TextModels, bodies: BodyReader, offload: Offload) -> list[ApiRoute]:
    """Make the routes of OpenAI's API. They answer every path below `/v1`: routes of other APIs there must come before
    them.

    Args:
        models: gives the models by name.
        bodies: reads and parses request bodies.
        offload: the threads that encode embeddings.
    """
    ends = _Endpoints(models, bodies, offload)

    def get(path: str, endpoint: Endpoint) -> ApiRoute:
        return ApiRoute(Api.METADATA, path, endpoint, answer_error=answer_error, key_header="x-api-key")

    def post(path: str, endpoint: Endpoint) -> ApiRoute:
        return ApiRoute(Api.INFERENCE, path, endpoint, ("POST",), answer_error)

    routes = [
        get("/v1/models", ends.list_models),
        get("/v1/models/{model}", ends.show_model),
        post("/v1/chat/completions", ends.chat),
        post("/v1/completions", ends.complete),
        post("/v1/responses", ends.respond),
        post("/v1/embeddings", ends.embed),
        post("/v1/audio/transcriptions", ends.transcribe),
        post("/v1/audio/translations", ends.translate),
        *sequence_routes(models, bodies, offload),
    ]
    return [*routes, *(otherwise(path, routes, answer_error) for path in ("/v1", "/v1/{rest:path}"))]


class _Endpoints:
    def __init__(self, models: TextModels, bodies: BodyReader, offload: Offload) -> None:
        self._models = models
        self._bodies = bodies
        self._offload = offload
        self._started = datetime.now(UTC).replace(microsecond=0)

    async def list_models(self, request: Request) -> Response:
        names = dict.fromkeys(entry.name for entry in self._models.last_index())
        listed = [each for name in names for each in self._served(name)]
        ends = {"first_id": listed[0]["id"], "last_id": listed[-1]["id"]} if listed else {}
        return JsonResponse({"object": "list", "data": listed, "has_more": False, **ends})

    async def show_model(self, request: Request) -> Response:
        name = request.path_params["model"]
        bases = (name, name.rpartition(":")[0])
        for each in [entry for base in bases for entry in self._served(base)]:
            if each["id"] == name:
                return JsonResponse(each)
        for base in bases:
            # Let UnavailableError pass: the model is not ready, and may turn out to be one for text.
            with contextlib.suppress(NotFoundError, InvalidArgumentError, UnsupportedError):
                self._models.text_model(base)
        raise unknown_model(name)

    def _served(self, name: str) -> list[dict[str, object]]:
        """The entries of a model for text and of its LoRA adapters in the list of models; empty for other models.

        OpenAI's and Anthropic's APIs list models at the same path, so each entry has the fields of both APIs. A model
        that was unloaded to make room is listed, too.
        """
        if (parked := self._models.parked_text_model(name)) is not None:
            return [self._entry(name), *({**self._entry(f"{name}:{each}"), "parent": name} for each in parked)]
        with contextlib.suppress(TriuneError):
            model = self._models.text_model(name)
            adapters = [{**self._entry(f"{name}:{adapter}"), "parent": name} for adapter in model.adapters]
            return [self._entry(name), *adapters]
        with contextlib.suppress(TriuneError):
            self._models.embedding_model(name)
            return [self._entry(name)]
        with contextlib.suppress(TriuneError):
            self._models.speech_model(name)
            return [self._entry(name)]
        return []

    def _entry(self, name: str) -> dict[str, object]:
        openai = {"object": "model", "created": int(self._started.timestamp()), "owned_by": "triune"}
        anthropic = {"type": "model", "display_name": name, "created_at": self._started.isoformat()}
        return {"id": name, **openai, **anthropic}

    async def chat(self, request: Request) -> Response:
        held = self._bodies.reserve()
        try:
            asked = await read_body(self._bodies, request, read_chat, held)
            asked = replace(asked, text=identified(asked.text, CHAT_PREFIX))
            model, adapter = await text_model_of(self._models, asked.text.model)
            parts, _ = await begin_chat(
                request,
                model,
                asked.chat,
                asked.text.generation,
                adapter,
                held,
                has_parallel_calls=asked.has_parallel_calls,
            )
            answer = ChatAnswer(asked.text, model.placement)
            return await respond(request, answer, parts, held, error_event, is_stream=asked.text.is_stream)
        except BaseException:
            held.release()
            raise

    async def complete(self, request: Request) -> Response:
        held = self._bodies.reserve()
        try:
            asked = await read_body(self._bodies, request, read_completion, held)
            if len(asked.prompts) == 1:
                asked = replace(asked, text=identified(asked.text, COMPLETION_PREFIX))
            model, adapter = await text_model_of(self._models, asked.text.model)
            generations, echoes = await while_connected(request, _prepared(model, asked, adapter))
            held.grow(TOKEN_BYTES * sum(len(each.prompt) for each in generations))
            answer = CompletionAnswer(asked.text, model.placement, asked.best)
            parts = parts_of(model, generations)
            if asked.is_echo:
                parts = echoed(parts, echoes, asked.text.generation.num_answers, is_prompt_only=asked.is_prompt_only)
            return await respond(request, answer, parts, held, error_event, is_stream=asked.text.is_stream)
        except BaseException:
            held.release()
            raise

    async def respond(self, request: Request) -> Response:
        held = self._bodies.reserve()
        try:
            asked = await read_body(self._bodies, request, read_response, held)
            model, adapter = await text_model_of(self._models, asked.text.model)
            parts, _ = await begin_chat(
                request,
                model,
                asked.chat,
                asked.text.generation,
                adapter,
                held,
                has_parallel_calls=asked.has_parallel_calls,
            )
            answer = ResponseAnswer(asked, model.placement, held)
            return await respond(request, answer, parts, held, answer.failed_event, is_stream=asked.text.is_stream)
        except BaseException:
            held.release()
            raise

    async def embed(self, request: Request) -> Response:
        held = self._bodies.reserve()
        try:
            asked = await read_body(self._bodies, request, read_embedding, held)
            model = await embedding_model_of(self._models, asked.model)
            held.grow(embedding_bytes(asked, model.width))
            bill = Bill() if asked.has_report else None
            embeddings, num_tokens = await while_connected(request, model.embed(asked.inputs, bill))
            report = None if bill is None else await embedding_report(model.placements, bill)
            encoded = await self._offload.run(encode_embeddings, asked, embeddings, num_tokens, report)
            held.resize(len(encoded))
        except BaseException:
            held.release()
            raise
        return HeldResponse(encoded, held)

    async def transcribe(self, request: Request) -> Response:
        return await self._read_speech(request, translates=False)

    async def translate(self, request: Request) -> Response:
        return await self._read_speech(request, translates=True)

    async def _read_speech(self, request: Request, *, translates: bool) -> Response:
        held = self._bodies.reserve()
        try:
            asked = read_transcription(await read_form(self._bodies, request, held), translates=translates)
            model = await speech_model_of(self._models, asked.model)
            seconds = await while_connected(request, model.seconds_of(asked.file))
            held.grow(DECODING_BYTES)
            transcript = Transcript(asked, model.placement, seconds)
            segments = model.transcribe(asked.file, asked.speech)
            if asked.is_stream:
                return await open_stream(request, closing(transcript.events(segments), segments), held, error_event)
            async with contextlib.aclosing(segments):
                return await while_connected(request, transcript.whole(segments, held))
        except BaseException:
            held.release()
            raise


async def _prepared(
    model: TextModel, asked: CompletionRequest, adapter: str | None
) -> tuple[list[Generation], Sequence[str]]:
    """The generation for each prompt, and the texts of the prompts if answers begin with them."""
    generations: list[Generation] = []
    echoes: list[str] = []
    for place, prompt in enumerate(asked.prompts):
        tokens = await model.tokenize(prompt) if isinstance(prompt, str) else prompt
        generations.append(with_prompt(model, replace(asked.text.generation, place=place), tokens, adapter))
        if asked.is_echo:
            echoes.append(prompt if isinstance(prompt, str) else await model.detokenize(prompt))
    return generations, echoes
