"""Put prompts before their answers, as the parameter `echo` asks for."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import replace

from triune.engine.generation import Delta, PromptLogprobs, TokenLogprob
from triune.engine.sequence import FinishReason
from triune.frontends.openai.logprobs import slices_of
from triune.frontends.text.answers import Part


async def echoed(
    parts: AsyncGenerator[Part], echoes: Sequence[str], num_answers: int, *, is_prompt_only: bool
) -> AsyncGenerator[Part]:
    """Yield each prompt, then its answer. Closing the generator closes `parts`.

    Args:
        parts: the new parts of the answers.
        echoes: the text of each prompt.
        num_answers: how many answers each prompt has.
        is_prompt_only: whether the text and the tokens of the answers are left out.
    """
    prompts: dict[int, PromptLogprobs] = {}
    begun: set[int] = set()
    async with contextlib.aclosing(parts):
        async for part in parts:
            place = part.index // num_answers
            if part.delta.prompt is not None:
                # The first answer to a prompt has the prompt's logprobs. The other answers repeat them.
                prompts[place] = part.delta.prompt
            if part.index not in begun:
                begun.add(part.index)
                text = echoes[place]
                for logprobs in _slices(prompts.get(place)):
                    yield Part(part.index, (), Delta(part.index, text, logprobs=logprobs), is_echo=True)
                    text = ""
                    await asyncio.sleep(0)
            yield _without_answer(part) if is_prompt_only else part


def _slices(prompt: PromptLogprobs | None) -> Iterator[tuple[TokenLogprob, ...]]:
    """Yield the logprobs of a prompt's tokens, some tokens at a time; one empty tuple if there are no logprobs."""
    if prompt is None:
        yield ()
    else:
        yield from slices_of(prompt)


def _without_answer(part: Part) -> Part:
    """A part of an answer without its text and its tokens; its finish reason is `length`, not `stop`."""
    delta = part.delta
    usage = None if delta.usage is None else replace(delta.usage, num_tokens=0)
    reason = FinishReason.LENGTH if delta.finish_reason is FinishReason.STOP else delta.finish_reason
    return replace(part, pieces=(), delta=Delta(delta.index, "", finish_reason=reason, usage=usage))
