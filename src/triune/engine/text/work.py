"""Tokenize, detokenize, and render conversations by the chat template, for one model. Work that takes long runs in a
thread.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from triune.core.errors import PayloadTooLargeError, UnsupportedError
from triune.core.fair_slots import FairSlots
from triune.core.threads import in_thread_to_its_end
from triune.engine.text.side import TextSide

_T = TypeVar("_T")

_INLINE_CHARACTERS: Final = 256
"""Texts up to this length are tokenized on the event loop's thread, which takes less than 0.1 ms, if the tokenizer is
quick on every short text.
"""

_LONG_CHARACTERS: Final = 100_000
"""Texts with more characters are tokenized one after another: while their ids, up to a million, become a Python list,
no other thread runs, and several at once would block all others for half a second.
"""

_MAX_THREADS: Final = 4
"""The most threads that tokenize and render templates at the same time."""


class TextWork:
    """Tokenizes, detokenizes, and renders conversations. Used on the event loop's thread. Short texts do not wait for
    long ones.
    """

    def __init__(self, name: str, text: TextSide) -> None:
        """Args:
        name: the model's name, for errors.
        text: tokenizer and chat template.
        """
        self._name = name
        self._text = text
        self._slots = FairSlots(_MAX_THREADS)
        self._large_slots = FairSlots(1)
        self._longest_token = max(map(len, text.token_bytes), default=1)

    async def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        variables: Mapping[str, Any],
        *,
        add_generation_prompt: bool,
    ) -> str:
        """The prompt of a conversation: see `TextModel.render`."""
        template = self._text.chat_template
        if template is None:
            raise UnsupportedError(
                f"model '{self._name}' has no chat template, so that it cannot read a conversation; send a prompt"
            )
        render = partial(
            template.render, messages, tools=tools, add_generation_prompt=add_generation_prompt, **variables
        )
        return await self.in_thread(render, sum(len(each.get("content") or "") for each in messages))

    async def tokenize(self, text: str, context_tokens: int, *, is_templated: bool) -> list[int]:
        """The tokens of a text: see `TextModel.tokenize`.

        Raises:
            PayloadTooLargeError: the text has more characters than `context_tokens` tokens can have.
        """
        # A token has at most `_longest_token` characters. So a text of more than `longest` characters has too many
        # tokens for the context, and need not be tokenized.
        longest = context_tokens * self._longest_token
        if len(text) > longest:
            raise PayloadTooLargeError(
                f"the text has {len(text)} characters; the context of {context_tokens} tokens holds at most "
                f"{longest}: shorten it"
            )
        return await self._here_or_in_thread(
            partial(self._text.tokenizer.encode, text, add_special_tokens=not is_templated), len(text)
        )

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of tokens: see `TextModel.detokenize`."""
        return await self._here_or_in_thread(
            partial(self._text.tokenizer.decode, tokens, skip_special_tokens=False), len(tokens)
        )

    async def in_thread(self, work: Callable[[], _T], size: int) -> _T:
        """Call `work`, which reads `size` characters or tokens, in a thread, as soon as fewer than four threads
        (_MAX_THREADS) work for this model; small work usually comes first (`FairSlots`). Only one thread at a time
        works on a text of more than 100,000 characters (_LONG_CHARACTERS). If the caller is cancelled, it waits until
        its thread has ended, so that there are never more threads.
        """
        async with contextlib.AsyncExitStack() as slots:
            if size > _LONG_CHARACTERS:
                await slots.enter_async_context(self._large_slots.slot(size))
            await slots.enter_async_context(self._slots.slot(size))
            return await in_thread_to_its_end(work)

    async def _here_or_in_thread(self, work: Callable[[], _T], size: int) -> _T:
        is_inline = size <= _INLINE_CHARACTERS and self._text.tokenizer.is_quick
        return work() if is_inline else await self.in_thread(work, size)
