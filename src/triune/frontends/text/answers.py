"""Runs generations, finds reasoning and tool calls in their answers, and counts their tokens and energy."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from triune.core.energy import report_of
from triune.core.errors import InternalError, UnavailableError
from triune.core.units import Unit
from triune.engine.generation import Delta, Generation, Placement, TextModel, Usage
from triune.engine.sequence import FinishReason
from triune.engine.tools.pieces import CallArguments, CallBegin, Piece, Reasoning, Text
from triune.engine.tools.reader import MARKERS, ToolCallReader
from triune.engine.tools.reasoning import REASONING_MARKERS, ReasoningReader

_NS_PER_MS = 1e6
_LOGPROB_BYTES = 300


@dataclass(frozen=True, slots=True)
class Part:
    """A new part of an answer.

    Attributes:
        index: the number of the answer among all answers of the request.
        pieces: the new text, reasoning and tool calls.
        delta: the same part in the form in which the model returned it.
        num_calls: the number of tool calls in the answer so far.
        num_reasoning_tokens: how many of the delta's tokens are reasoning.
        is_echo: whether the part repeats a part of the prompt (`echo`); its delta has no tokens then.
    """

    index: int
    pieces: Sequence[Piece]
    delta: Delta
    num_calls: int = 0
    num_reasoning_tokens: int = 0
    is_echo: bool = False

    @property
    def num_bytes(self) -> int:
        """About how much memory the part takes until its response is written."""
        logprobs = self.delta.logprobs
        return 4 * len(self.delta.text) + _LOGPROB_BYTES * sum(1 + len(each.top) for each in logprobs)


async def parts_of(
    model: TextModel,
    generations: Sequence[Generation],
    tools: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    has_parallel_calls: bool = True,
    is_reasoning: bool | None = None,
) -> AsyncGenerator[Part]:
    """Run generations at the same time, and yield the new parts of their answers. Closing the generator cancels them.

    Args:
        model: the model.
        generations: what to generate, each with its prompt. The answers of all generations are numbered
            consecutively: those of the second generation follow those of the first.
        tools: the JSON schema of the parameters of each tool that the model may call, by name; None if it may call
            none.
        has_parallel_calls: if False, all calls of an answer but the first are left out.
        is_reasoning: whether the prompts end within reasoning; None if reasoning is not to be separated from the text.

    Raises:
        TriuneError: as `TextModel.generate`.
    """
    readers: dict[int, _AnswerReader] = {}
    shown = (MARKERS if tools else frozenset[str]()) | (frozenset[str]() if is_reasoning is None else REASONING_MARKERS)
    if shown:
        generations = [replace(each, shown_specials=shown) for each in generations]
    offsets = [0]
    for generation in generations:
        offsets.append(offsets[-1] + generation.num_answers)
    async with contextlib.aclosing(_merged([model.generate(each) for each in generations])) as deltas:
        async for place, delta in deltas:
            check_end(delta)
            index = offsets[place] + delta.index
            if index not in readers:
                # An answer with a constraint has no reasoning, so do not look for any: the constraint applies from the
                # first token on.
                has_reasoning = is_reasoning if generations[place].constraint is None else None
                readers[index] = _AnswerReader(tools, has_parallel_calls, has_reasoning)
            yield readers[index].part(index, delta)


class _AnswerReader:
    """Finds reasoning and calls of tools in one answer. The arguments are those of `parts_of`."""

    def __init__(
        self, tools: Mapping[str, Mapping[str, Any]] | None, has_parallel_calls: bool, is_reasoning: bool | None
    ) -> None:
        self._calls = ToolCallReader(tools) if tools else None
        self._reasoning = None if is_reasoning is None else ReasoningReader(is_inside=is_reasoning)
        self._has_parallel_calls = has_parallel_calls

    def part(self, index: int, delta: Delta) -> Part:
        """Convert a delta of the answer with this index to a part, with reasoning and tool calls separated."""
        text, is_last = delta.text, delta.finish_reason is not None
        pieces: list[Piece] = []
        num_reasoning_tokens = 0
        if self._reasoning is not None:
            was_inside = self._reasoning.is_inside
            reasoning, text = self._reasoning.add(text, is_last=is_last)
            if was_inside or self._reasoning.is_inside:
                num_reasoning_tokens = len(delta.tokens)
            if reasoning:
                pieces.append(Reasoning(reasoning))
        if self._calls is None:
            return Part(index, [*pieces, Text(text)] if text else pieces, delta, 0, num_reasoning_tokens)
        found = self._calls.add(text) + (self._calls.end() if is_last else [])
        if not self._has_parallel_calls:
            found = [each for each in found if not isinstance(each, (CallBegin, CallArguments)) or not each.index]
        return Part(index, [*pieces, *found], delta, self._calls.num_calls, num_reasoning_tokens)


def check_end(delta: Delta) -> None:
    """Raise UnavailableError or InternalError if this delta ends an answer that was cancelled or has failed."""
    if delta.finish_reason is FinishReason.CANCELLED:
        raise UnavailableError("the answer was cancelled within the server; send the request again")
    if delta.finish_reason is FinishReason.ERROR:
        raise InternalError("the model failed within the answer; send the request again")


async def _merged(streams: Sequence[AsyncGenerator[Delta]]) -> AsyncGenerator[tuple[int, Delta]]:
    """Yield (index of the stream, item) for the items of all streams, in the order in which they arrive. One item of
    each stream is read ahead.
    """
    async with contextlib.AsyncExitStack() as stack:
        for stream in streams:
            await stack.enter_async_context(contextlib.aclosing(stream))
        if len(streams) == 1:
            async for delta in streams[0]:
                yield 0, delta
            return
        waiting = {asyncio.ensure_future(anext(stream, None)): place for place, stream in enumerate(streams)}
        # Close the streams after the tasks that read them have ended.
        stack.push_async_callback(_cancel, waiting)
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                delta = task.result()
                place = waiting.pop(task)
                if delta is not None:
                    waiting[asyncio.ensure_future(anext(streams[place], None))] = place
                    yield place, delta


async def _cancel(tasks: Mapping["asyncio.Task[Delta | None]", int]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(slots=True)
class Cost:
    """The total usage of a request's answers.

    Attributes:
        num_answers_per_prompt: the number of answers to each prompt.
        usages: the usage of each answer, by its index.
        num_reasoning_tokens: the number of reasoning tokens in all answers.
    """

    num_answers_per_prompt: int = 1
    usages: dict[int, Usage] = field(default_factory=dict[int, Usage])
    num_reasoning_tokens: int = 0

    def add(self, part: Part) -> None:
        """Add the part's tokens, and, if it is the last of its answer, the answer's usage."""
        self.num_reasoning_tokens += part.num_reasoning_tokens
        if part.delta.usage is not None:
            self.usages[part.index] = part.delta.usage

    @property
    def num_prompt_tokens(self) -> int:
        """The number of tokens of all prompts; a prompt with several answers counts once."""
        return sum(usage.num_prompt_tokens for usage in self._first_answers)

    @property
    def num_cached_tokens(self) -> int:
        """The number of prompt tokens that were in the prefix cache before the request."""
        return sum(usage.num_cached_tokens for usage in self._first_answers)

    @property
    def num_tokens(self) -> int:
        """The number of tokens of all answers."""
        return sum(usage.num_tokens for usage in self.usages.values())

    @property
    def _first_answers(self) -> list[Usage]:
        return [usage for index, usage in self.usages.items() if index % self.num_answers_per_prompt == 0]

    async def report(self, placement: Placement) -> dict[str, Any]:
        """The report that `triune: true` adds to an answer. With several answers, the times are the longest ones. With
        several units, `unit` is the one with the most tokens, and `units` has the tokens of each.

        It waits for the energy meter, at most a tenth of a second unless the meter hangs.
        """
        usages = self.usages.values()
        placements = [each for usage in usages for each in usage.placements] or [placement]
        units: dict[Unit, int] = {}
        for usage in usages:
            for unit, num_tokens in usage.units.items():
                units[unit] = units.get(unit, 0) + num_tokens
        placement = max(placements, key=lambda each: units.get(each.unit, 0))
        return {
            "unit": placement.unit.value,
            "units": {unit.value: num_tokens for unit, num_tokens in units.items()},
            "runtime": placement.runtime,
            "precision": placement.precision,
            "reason": "; ".join(dict.fromkeys(each.reason for each in placements)),
            "queue_ms": max((usage.queue_ns for usage in usages), default=0) / _NS_PER_MS,
            "first_token_ms": max((usage.first_token_ns for usage in usages), default=0) / _NS_PER_MS,
            "total_ms": max((usage.total_ns for usage in usages), default=0) / _NS_PER_MS,
            "cached_tokens": self.num_cached_tokens,
            "energy": await report_of([usage.bill for usage in usages if usage.bill is not None]),
        }
