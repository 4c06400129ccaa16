"""An encoder as a servable: embeddings of texts, or the logits of their classes."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from triune.config.encoder import COUNT_OUTPUT, EMBEDDING_OUTPUT, PART_TEXTS, TEXT_INPUT
from triune.core.datatypes import Array
from triune.core.energy import Bill
from triune.core.errors import InvalidArgumentError
from triune.core.fair_slots import FairSlots
from triune.core.finishing import Finishing
from triune.core.requests import InferenceRequest, InferenceResponse
from triune.core.servable import Call, Servable, only_answer
from triune.core.threads import in_thread, in_thread_to_its_end
from triune.engine.encoder_steps import StepSize, steps_of
from triune.engine.generation import Placement
from triune.engine.model_servable import ModelServable

if TYPE_CHECKING:
    # This is imported for types only: the module needs the library `tokenizers`, which only servers of checkpoints
    # have.
    from triune.engine.encoder import Ids, TextEncoder

_MAX_READERS: Final = 2
"""The largest number of threads that tokenize long texts at the same time."""

MAX_INPUTS: Final = 2048
"""The largest number of texts of a request."""


class EncoderServable(ModelServable[Servable]):
    """A `Servable` for requests of texts. It divides a request into parts, which another servable computes.

    Input `text_input`: BYTES [texts]. Outputs: `embedding` or `logits` FP32 [texts, width], and `num_tokens` INT32
    [texts]. It is an `EmbeddingModel` if the first output is `embedding`.
    """

    def __init__(
        self,
        computing: Servable,
        encoder: "TextEncoder",
        steps: StepSize,
        placements: Sequence[Placement],
        output: str,
        name: str,
        version: int,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        """Args:
        computing: the servable that computes parts of at most PART_TEXTS texts; `close` closes it. The `size` of each
            of its calls is a number of tokens.
        encoder: the tokenizer, and the description of the outputs.
        steps: determines how many tokens a part may have.
        placements: where the encoder runs: one placement for each unit, in the order of the config.
        output: the name of the output.
        name: the model's name.
        version: its version.
        on_close: the function to call after `computing` was closed.
        """
        super().__init__(computing, name, version)
        self._on_close = on_close
        self._finishing = Finishing()
        self._slots = FairSlots(_MAX_READERS)
        self._encoder = encoder
        self._steps = steps
        self._output = output
        self.placements = placements

    @property
    def is_embedding(self) -> bool:
        """Whether the model embeds texts, rather than classifying them."""
        return self._output == EMBEDDING_OUTPUT

    @property
    def max_tokens(self) -> int:
        """Implements `EmbeddingModel.max_tokens`."""
        return self._encoder.max_tokens

    @property
    def width(self) -> int:
        """Implements `EmbeddingModel.width`."""
        return self._encoder.width

    async def embed(self, inputs: Sequence[str | Sequence[int]], bill: Bill | None = None) -> tuple[Array, int]:
        """Implements `EmbeddingModel.embed`."""
        texts = np.empty(len(inputs), np.object_)
        for at, each in enumerate(inputs):
            texts[at] = each
        request = InferenceRequest(self._name, {TEXT_INPUT: texts})
        outputs = (await self.submit(Call(request, request.inputs, 1, bill=bill))).outputs
        return outputs[self._output], int(outputs[COUNT_OUTPUT].sum())

    def submit(self, call: Call) -> asyncio.Future[InferenceResponse]:
        """Embed or classify the texts of a request: see `Servable.submit`.

        Raises:
            InvalidArgumentError: there are no texts, or too many.
            UnavailableError: too many texts wait, or the model is being unloaded.
        """
        texts = call.inputs[TEXT_INPUT]
        if not 1 <= len(texts) <= MAX_INPUTS:
            raise InvalidArgumentError(f"{len(texts)} inputs are given; a request may have 1 to {MAX_INPUTS}: split it")
        if self.statistics.num_pending:
            self._steps.share()
        given = list(texts)
        if len(given) <= PART_TEXTS and self._encoder.is_quick(given):
            return self.model.submit(replace(call, batch_size=len(given), size=self._encoder.expected_tokens(given)))
        return asyncio.ensure_future(self._in_parts(call, given))

    async def _in_parts(self, call: Call, texts: Sequence[object]) -> InferenceResponse:
        """Tokenize long texts in a thread and compute them, one part after another, so that other requests are computed
        in between.
        """
        read: list[Ids] = []
        for begin, end, length in self._encoder.parts_to_read(texts):
            async with self._slots.slot(length):
                read += await in_thread_to_its_end(self._encoder.read, texts[begin:end], begin)
        parts: list[list[int]] = []
        answers: dict[int, InferenceResponse] = {}
        # `steps_of` is a generator: how many tokens a part has is decided when the part's turn comes.
        waiting = steps_of([len(each) for each in read], self._steps.num_tokens, PART_TEXTS)

        async def compute() -> None:
            for part in waiting:
                number = len(parts)
                parts.append(part)
                ids = np.empty(len(part), np.object_)
                for at, place in enumerate(part):
                    ids[at] = read[place]
                size = sum(len(read[place]) for place in part)
                one = replace(call, inputs={TEXT_INPUT: ids}, batch_size=len(part), finish=None, size=size)
                answers[number] = await self.model.submit(one)

        # Run one task for each unit, and one more, whose part waits until a unit is free, which then gets work at once.
        tasks = [asyncio.ensure_future(compute()) for _ in range(1 + len(self.placements))]
        try:
            await asyncio.gather(*tasks)
        finally:
            # If a part fails or the request is cancelled, cancel the parts that are not done.
            for task in tasks:
                task.cancel()
        # Copying thousands of embeddings (megabytes) here would block the event loop, so a thread does it.
        response = await in_thread(self._joined, call, parts, [answers[number] for number in range(len(parts))])
        return response if call.finish is None else await self._finishing.run(call.finish, response)

    def stream(self, call: Call) -> AsyncGenerator[InferenceResponse]:
        """Implements `Servable.stream`."""
        return only_answer(self, call)

    async def close(self) -> None:
        """Implements `Servable.close`."""
        await super().close()
        if self._on_close is not None:
            self._on_close()

    def _joined(
        self, call: Call, parts: Sequence[Sequence[int]], answers: Sequence[InferenceResponse]
    ) -> InferenceResponse:
        """Join the answers to parts into one, with rows in the order of the texts."""
        order = np.argsort(np.concatenate(parts))
        outputs = {name: np.concatenate([each.outputs[name] for each in answers])[order] for name in answers[0].outputs}
        return InferenceResponse(self._name, self._version, outputs, call.request.id)
