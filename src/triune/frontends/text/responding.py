"""Create the response from an answer, as a whole or as events."""

import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response

from triune.engine.generation import Generation, TextModel
from triune.frontends.bodies.budget import Reservation
from triune.frontends.bodies.event_streams import open_stream, while_connected
from triune.frontends.bodies.responses import HeldResponse
from triune.frontends.text.answers import Part, parts_of
from triune.frontends.text.chat import TOKEN_BYTES, Chat, chat_prompt, with_prompt


class Answer(Protocol):
    """Writes the answer to a request in the form of an API."""

    def events(self, parts: AsyncGenerator[Part]) -> AsyncGenerator[bytes]:
        """Yield the answer as server-sent events."""
        ...

    async def whole(self, parts: AsyncGenerator[Part], held: Reservation) -> Sequence[bytes]:
        """The answer as one document, in pieces. The request's reservation of memory grows by their size."""
        ...


async def begin_chat(
    request: Request,
    model: TextModel,
    chat: Chat,
    generation: Generation,
    adapter: str | None,
    held: Reservation,
    *,
    has_parallel_calls: bool,
) -> tuple[AsyncGenerator[Part], int]:
    """Read a conversation into tokens, and begin its answer.

    Args:
        request: the request, whose body has been read.
        model: the model.
        chat: the conversation.
        generation: how the answer is generated.
        adapter: the LoRA adapter; None for none.
        held: the request's reservation of memory, which grows by the size of the prompt.
        has_parallel_calls: see `parts_of`.

    Returns:
        the parts of the answer, and the number of tokens of the prompt.

    Raises:
        TriuneError: as `chat_prompt` and `with_prompt`.
    """
    prompt = await while_connected(request, chat_prompt(model, chat))
    held.grow(TOKEN_BYTES * len(prompt.tokens))
    prompted = with_prompt(model, generation, prompt.tokens, adapter)
    parts = parts_of(
        model, [prompted], chat.parameters, has_parallel_calls=has_parallel_calls, is_reasoning=prompt.is_reasoning
    )
    return parts, len(prompt.tokens)


async def respond(
    request: Request,
    answer: Answer,
    parts: AsyncGenerator[Part],
    held: Reservation,
    failed: Callable[[Exception], bytes],
    *,
    is_stream: bool,
) -> Response:
    """Create the response. If the client disconnects, the generation is cancelled.

    Args:
        request: the request, whose body has been read.
        answer: writes the answer.
        parts: the new parts of the answer.
        held: the request's reservation. The response releases it; if this raises, the caller does.
        failed: makes the last event of a stream from an error that occurs after the answer has begun.
        is_stream: whether to answer with events.

    Raises:
        TriuneError: the generation failed before the answer began.
    """
    if is_stream:
        return await open_stream(request, closing(answer.events(parts), parts), held, failed)
    async with contextlib.aclosing(parts):
        encoded = await while_connected(request, answer.whole(parts, held))
    held.resize(sum(map(len, encoded)))
    return HeldResponse(encoded, held)


async def closing(events: AsyncGenerator[bytes], parts: AsyncGenerator[Any]) -> AsyncGenerator[bytes]:
    """Yield the events. Closing this generator also closes `parts`."""
    async with contextlib.aclosing(parts), contextlib.aclosing(events):
        async for event in events:
            yield event
