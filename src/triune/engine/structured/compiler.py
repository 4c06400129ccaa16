"""Compiles constraints for one model's vocabulary."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final
from weakref import WeakSet

from llguidance import LLMatcher, LLTokenizer

from triune.core.errors import UnavailableError
from triune.engine.structured.constraint import Constraint
from triune.engine.structured.grammar import grammar_of
from triune.engine.structured.matcher import Matcher
from triune.engine.structured.trial import Trials, parser_limits, require_usable
from triune.engine.weights.tokenizer.tokenizer import Tokenizer

MAX_GRAMMARS: Final = 128
"""The most requests with a constraint at the same time. A short one takes up to 20 MiB if it is made for that, one as
long as may be 80 MiB, see `trial.parser_limits`; usually it is less than 1 MiB.
"""

_MAX_WAITING: Final = 32
_MAX_REMEMBERED: Final = 4096


class Grammar:
    """A compiled constraint."""

    def __init__(self, matcher: LLMatcher, vocab_size: int, end_tokens: Sequence[int]) -> None:
        """Args:
        matcher: nothing was accepted by it yet.
        vocab_size: the rows of the model's embedding.
        end_tokens: the model's own end tokens.
        """
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._end_tokens = end_tokens

    def matcher(self) -> Matcher:
        """The state of one more answer."""
        return Matcher(self, self._matcher.deep_copy(), self._vocab_size, self._end_tokens)


class ConstraintCompiler:
    """Compiles constraints. Any thread may use it."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        """Prepare the vocabulary, which takes about 0.15 s for 50,000 tokens, in which the GIL is held.

        Args:
            tokenizer: the model's tokenizer.
            vocab_size: the rows of the model's embedding.
        """
        self._end_tokens = tokenizer.tokens.eos
        self._vocab_size = vocab_size
        words = _Vocabulary(tokenizer, vocab_size)
        self._tokenizer = LLTokenizer(words, eos_token=list(self._end_tokens) or None)  # pyright: ignore[reportArgumentType]
        words.greedy = self._tokenizer
        self._grammars: WeakSet[Grammar] = WeakSet()
        self._lock = threading.Lock()
        self._trials = Trials()
        self._waiting = threading.BoundedSemaphore(_MAX_WAITING)
        self._tried: OrderedDict[bytes, None] = OrderedDict()

    def compile(self, constraint: Constraint) -> Grammar:
        """Compile a constraint. This takes milliseconds to seconds, so do not call it on the event loop's thread.

        Raises:
            InvalidArgumentError: the constraint is wrong, no answer can meet it, or it is too complex.
            UnavailableError: too many constraints wait or are in use.
        """
        if len(self._grammars) >= MAX_GRAMMARS:
            raise UnavailableError(
                f"{len(self._grammars)} constraints are in use, of at most {MAX_GRAMMARS}; try again later"
            )
        if not self._waiting.acquire(blocking=False):
            raise UnavailableError(f"{_MAX_WAITING} constraints wait to be compiled, as many as may; try again later")
        try:
            text = grammar_of(constraint)
            with self._lock:
                self._try(text)
                matcher = LLMatcher(self._tokenizer, text, log_level=0, limits=parser_limits(text))
            require_usable(matcher)
        finally:
            self._waiting.release()
        grammar = Grammar(matcher, self._vocab_size, self._end_tokens)
        self._grammars.add(grammar)
        return grammar

    def close(self) -> None:
        """End the process that tries constraints. Waits for the one that it tries."""
        with self._lock:
            self._trials.close()

    def _try(self, text: str) -> None:
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if digest not in self._tried:
            self._trials.require(text)
        self._tried[digest] = None
        self._tried.move_to_end(digest)
        if len(self._tried) > _MAX_REMEMBERED:
            self._tried.popitem(last=False)


class _Vocabulary:
    """A tokenizer in the form that llguidance asks for."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self._bytes = tokenizer.token_bytes
        self.greedy: LLTokenizer | None = None
        self.eos_token_id = next(iter(tokenizer.tokens.eos), None)
        # A token without bytes is never allowed. Special tokens get names that no text has: these are not UTF-8.
        self.tokens = [*self._bytes, *[b""] * (vocab_size - len(self._bytes))]
        self.special_token_ids = sorted({*tokenizer.special_ids, *tokenizer.tokens.eos})
        for token in self.special_token_ids:
            self.tokens[token] = b"\xff" + str(tokenizer.backend.id_to_token(token)).encode()

    def __call__(self, text: str) -> Iterable[int]:
        """The tokens of a text that the grammar leaves no choice of, as the model would most likely write it."""
        ids = self._tokenizer.encode(text, add_special_tokens=False)
        if b"".join(self._bytes[each] for each in ids) == text.encode():
            return ids
        # The tokenizer puts a space before a text, or changes letters.
        assert self.greedy is not None
        return self.greedy.greedy_tokenize(text)
