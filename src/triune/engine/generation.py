"""Requests to a model that generates or embeds text, and its answers: the interface between front ends and the
engine.
"""

import math
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from triune.core.datatypes import Array
from triune.core.energy import Bill
from triune.core.units import Unit
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.sampling.prompt_scores import PromptScores
from triune.engine.sequence import FinishReason
from triune.engine.structured.constraint import Constraint


@dataclass(frozen=True, slots=True)
class Generation:
    """A request for one or more answers to a prompt.

    Attributes:
        prompt: a text, or token ids.
        sampling: how tokens are chosen.
        max_tokens: the most tokens of an answer; None allows the remaining context.
        min_tokens: neither end tokens nor `stop_tokens` end an answer before it has this many tokens.
        stop: texts that end an answer. The answer does not contain the text, unless `is_stop_included`.
        stop_tokens: token ids that end an answer, in addition to the model's own end tokens.
        is_end_ignored: whether the model's own end tokens do not end an answer.
        is_stop_included: whether an answer contains the stop text that ended it.
        is_templated: whether `prompt` is a text that a chat template made: it has the special tokens already. No
            special tokens are added to it.
        shown_specials: special tokens, by their texts, that are part of an answer's text, such as one that opens a
            call of a tool; other special tokens are not.
        num_answers: how many answers to give to the prompt (OpenAI's `n`).
        priority: 0 is the most urgent.
        constraint: the form that the answers must have; None leaves them free. An answer ends when it is complete in
            this form.
        adapter: the name of the LoRA adapter to use (`TextModel.adapters`); None for the model without an adapter.
        id: the request's id, by which its answer can be moved to another server (`moving.movable`); empty if it may not
            be moved.
        unit: the unit that computes it; None leaves the choice to the model.
        place: the index of the prompt among the prompts of one request. First prompts of other requests are computed
            before later prompts.
        num_prompt_logprobs: how many of the most probable tokens to report for each position of the prompt, besides the
            probability of the prompt's own token (`Delta.prompt`); None reports none. Such a prompt is computed as a
            whole, even if the prefix cache has it.
    """

    prompt: str | Sequence[int]
    sampling: SamplingParameters = field(default_factory=SamplingParameters)
    max_tokens: int | None = None
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_tokens: frozenset[int] = frozenset()
    is_end_ignored: bool = False
    is_stop_included: bool = False
    is_templated: bool = False
    shown_specials: frozenset[str] = frozenset()
    num_answers: int = 1
    priority: int = 0
    constraint: Constraint | None = None
    adapter: str | None = None
    id: str = ""
    unit: Unit | None = None
    place: int = 0
    num_prompt_logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token with the logarithm of its probability.

    Attributes:
        token: the token's id.
        text: the token's bytes, which may be a part of a character.
        logprob: the logarithm of its probability by the model's own logits; NaN for the first token of a prompt, which
            has none, and where logits of a prompt hold NaN or infinity.
        top: the most probable tokens at this position, the most probable first; their `top` is empty.
        rank: its place among all tokens by their probability, from 1 on; 0 for tokens of `top`, and where `logprob` is
            NaN.
    """

    token: int
    text: bytes
    logprob: float
    top: tuple["TokenLogprob", ...] = ()
    rank: int = 0


@dataclass(frozen=True, slots=True)
class PromptLogprobs:
    """The tokens of a prompt with their probabilities. The tokens of a long prompt should be read slice by slice.

    Attributes:
        prompt: the ids of the prompt's tokens.
        scores: their probabilities, all known.
        token_bytes: the bytes of each token of the model.
    """

    prompt: Sequence[int]
    scores: PromptScores
    token_bytes: Sequence[bytes]

    def __len__(self) -> int:
        """The number of tokens."""
        return len(self.prompt)

    def __iter__(self) -> Iterator[TokenLogprob]:
        """The tokens in order. The logprob of the first is NaN."""
        return (self._at(place) for place in range(len(self.prompt)))

    @property
    def num_top(self) -> int:
        """The number of the most probable tokens that are reported at each position."""
        return self.scores.top_tokens.shape[1]

    def slice(self, begin: int, end: int) -> tuple[TokenLogprob, ...]:
        """The tokens from position `begin` up to position `end`, which is not included."""
        return tuple(self._at(place) for place in range(begin, min(end, len(self.prompt))))

    def _at(self, place: int) -> TokenLogprob:
        token, texts = self.prompt[place], self.token_bytes
        if not place:
            return TokenLogprob(token, texts[token], math.nan)
        logprob, top = self.scores.at(place)
        others = tuple(TokenLogprob(other, texts[other], each) for other, each in top)
        return TokenLogprob(token, texts[token], logprob, others, int(self.scores.ranks[place - 1]))


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens, times and energy of an answer.

    Attributes:
        num_prompt_tokens: tokens of the prompt.
        num_cached_tokens: prompt tokens whose keys and values were in the prefix cache.
        num_tokens: tokens of the answer.
        queue_ns: the time from the request's arrival to its first step.
        first_token_ns: the time from the request's arrival to its first token.
        total_ns: the time from the request's arrival to its last token.
        bill: the joules of the answer; None if energy is not metered.
        placements: the units on which it was computed, in order, each with the reason.
        units: the number of the answer's tokens that each unit computed.
    """

    num_prompt_tokens: int
    num_cached_tokens: int
    num_tokens: int
    queue_ns: int = 0
    first_token_ns: int = 0
    total_ns: int = 0
    bill: Bill | None = None
    placements: tuple["Placement", ...] = ()
    units: Mapping[Unit, int] = field(default_factory=dict[Unit, int])


@dataclass(frozen=True, slots=True)
class Delta:
    """A new part of an answer.

    Attributes:
        index: the index of its answer among the `num_answers`.
        text: the text that was added; may be empty, for example while a character is incomplete or could begin a stop
            text.
        tokens: the token ids that were added.
        logprobs: the probability of each of `tokens` if the request asks for probabilities, else empty.
        finish_reason: why the answer ended with this delta; None if it continues.
        stop: the stop text or stop token that ended it; None if none did.
        usage: the tokens and times of the answer, only in its last delta.
        prompt: the probabilities of the prompt's tokens, if the request wants them. They are in the first delta of the
            first answer, which comes before the deltas of other answers.
    """

    index: int
    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    stop: str | int | None = None
    usage: Usage | None = None
    prompt: PromptLogprobs | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a model runs.

    Attributes:
        unit: the unit.
        runtime: the runtime's name.
        precision: the floating-point format of the computation: "fp32", "bf16", "fp16".
        reason: why it runs there, in one sentence.
    """

    unit: Unit
    runtime: str
    precision: str
    reason: str


class TextModel(Protocol):
    """A loaded model that generates text. Used on the event loop's thread; slow work is done in other threads."""

    @property
    def context_tokens(self) -> int:
        """The most tokens of prompt and answer together; or of each of them, if an encoder reads the prompt."""
        ...

    def room_behind(self, num_prompt_tokens: int) -> int:
        """The most tokens that an answer to a prompt of this length may have; less than 1 if the prompt is too long."""
        ...

    @property
    def can_chat(self) -> bool:
        """Whether the model has a chat template."""
        ...

    @property
    def adapters(self) -> Sequence[str]:
        """The names of the LoRA adapters that a request may choose."""
        ...

    @property
    def placement(self) -> Placement:
        """The placement of the model on its first unit. `Usage.placements` has the units of an answer."""
        ...

    async def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Write a conversation in the form that the model reads (see `ChatTemplate.render`). The result is a prompt for
        a `Generation` with `is_templated`.

        Args:
            messages: the messages as in OpenAI's API.
            tools: descriptions of functions, as in OpenAI's API; None if the model may call none.
            add_generation_prompt: whether to add the beginning of the assistant's next message.
            variables: other variables that the template may read, such as "enable_thinking".

        Raises:
            InvalidArgumentError: the template refuses the conversation.
            UnsupportedError: the model has no chat template.
        """
        ...

    async def tokenize(self, text: str, *, is_templated: bool = False) -> list[int]:
        """The token ids of a text as `generate` reads it.

        Args:
            text: the text.
            is_templated: whether a chat template made the text, so that no special tokens are added to it.

        Raises:
            InvalidArgumentError: the text cannot be encoded as UTF-8.
        """
        ...

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of token ids, special tokens included. Raises InvalidArgumentError for an unknown id."""
        ...

    def generate(self, request: Generation) -> AsyncGenerator[Delta]:
        """Generate the answers to a prompt. Closing the generator cancels them: their KV blocks are free within a step.

        A client that reads slowly gets several tokens in one delta. Each answer ends with one delta that has a
        `finish_reason` and its `usage`, and the generator ends when all answers have.

        Raises:
            InvalidArgumentError: the prompt is empty, longer than the context, or holds an unknown token; a parameter
                is out of range; the adapter is unknown; or the constraint is wrong, too complex, or cannot be met.
            UnavailableError: too many requests wait, or the model is being unloaded.
            InternalError: the model failed; answers that are not finished end with it.
        """
        ...


class EmbeddingModel(Protocol):
    """A loaded model that embeds texts. Used on the event loop's thread; slow work is done in other threads."""

    @property
    def max_tokens(self) -> int:
        """The most tokens of a text, special tokens included."""
        ...

    @property
    def width(self) -> int:
        """The number of elements of an embedding."""
        ...

    @property
    def placements(self) -> Sequence[Placement]:
        """The placements of the model, one for each unit, in the order of the config."""
        ...

    async def embed(self, inputs: Sequence[str | Sequence[int]], bill: Bill | None = None) -> tuple[Array, int]:
        """Embed texts, together with those of other calls that wait. Cancelling it withdraws what has not begun.

        Args:
            inputs: each a text, or the ids of tokens. Special tokens are added to texts, but not to ids.
            bill: the bill that records the units and is charged with the joules; None if the client did not ask for
                them.

        Returns:
            The embeddings, FP32 [number of inputs, width], and the number of tokens that were read, including special
            tokens.

        Raises:
            InvalidArgumentError: an input is empty, has more tokens than `max_tokens` (no text is shortened), holds an
                unknown token or cannot be encoded as UTF-8; or there are more inputs than one call may have. None of
                the inputs is computed then.
            UnavailableError: too many texts wait, or the model is being unloaded.
            InternalError: the model failed.
        """
        ...
