"""Decides which tokens may follow in one answer, by its constraint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from triune.core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from llguidance import LLMatcher


class Matcher:
    """Follows one answer through its grammar. Used by one thread at a time."""

    def __init__(self, grammar: object, matcher: LLMatcher, vocab_size: int, end_tokens: Sequence[int]) -> None:
        """Args:
        grammar: the answer's grammar. It is only held here, since it counts as in use as long as it is held.
        matcher: the library's state, at the beginning of the answer.
        vocab_size: the rows of the model's embedding.
        end_tokens: the model's own end tokens.
        """
        self._grammar = grammar
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._end_tokens = [*end_tokens]

    def fork(self) -> Matcher:
        """Make a copy of the matcher in the same state."""
        return Matcher(self._grammar, self._matcher.deep_copy(), self._vocab_size, self._end_tokens)

    @property
    def is_ended(self) -> bool:
        """Whether the answer is complete and nothing may follow, or the model has ended it."""
        return self._matcher.is_stopped()

    def allowed(self, *, may_end: bool = True) -> NDArray[np.bool_]:
        """The tokens that may come next, bool [vocabulary].

        The model's end tokens are among them where the grammar may end.

        Args:
            may_end: whether end tokens are allowed. If False, they are allowed only if nothing else may follow.

        Raises:
            InvalidArgumentError: finding the allowed tokens exceeds a limit of the library.
        """
        packed = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error():
            raise _cannot_go_on(self._matcher)
        mask = np.unpackbits(packed, bitorder="little", count=self._vocab_size).view(np.bool_)
        if not may_end and self._end_tokens:
            ends = mask[self._end_tokens]
            mask[self._end_tokens] = False
            if not mask.any():
                mask[self._end_tokens] = ends
        return mask

    def accept(self, token: int) -> None:
        """Advance by a token, which must be one of the tokens of `allowed`.

        Raises:
            InvalidArgumentError: a limit of the library is exceeded, or the token is not allowed.
        """
        if not self._matcher.consume_token(token):
            raise _cannot_go_on(self._matcher)

    def forced(self) -> list[int]:
        """The tokens that must come next, up to the next choice. The matcher's state does not change."""
        return self._matcher.compute_ff_tokens()

    def num_fitting(self, tokens: Sequence[int]) -> int:
        """How many of `tokens`, from the first on, may follow one after the other. The matcher's state does not
        change.
        """
        return self._matcher.validate_tokens([*tokens])


def _cannot_go_on(matcher: LLMatcher) -> InvalidArgumentError:
    return InvalidArgumentError(f"the answer cannot go on under its constraint: {reason_of(matcher)}")


def reason_of(matcher: LLMatcher) -> str:
    """The library's error message for a matcher that failed, in one line."""
    lines = [line.strip() for line in matcher.get_error().splitlines()]
    # Lines are shortened, since some repeat the grammar, which may be long.
    words = [f"{line[:117]}..." if len(line) > 120 else line for line in lines if line not in ("", "<non-verbose/>")]
    return " ".join(words)[:1000] or "no answer can meet it"
