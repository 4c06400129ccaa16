"""Compile constraints for the vocabulary of one model."""

import asyncio
import contextlib
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Generator, Iterable, Sequence
from typing import Final
from weakref import ReferenceType, WeakSet, ref

from llguidance import LLMatcher, LLTokenizer

from triune.core.errors import InvalidArgumentError, UnavailableError
from triune.core.fair_slots import FairSlots
from triune.core.panics import is_panic
from triune.core.printable import printable
from triune.core.threads import in_thread, in_thread_or_here
from triune.engine.structured.constraint import Constraint
from triune.engine.structured.grammar import grammar_of
from triune.engine.structured.matcher import Matcher
from triune.engine.structured.trial import Trials, parser_limits, require_usable
from triune.engine.weights.tokenizer.tokenizer import Tokenizer

MAX_GRAMMARS: Final = 128
"""The most requests with a constraint at the same time. A short adversarial constraint takes up to 20 MiB, and one of
the longest allowed length 80 MiB (see `trial.parser_limits`); usually a constraint takes less than 1 MiB.
"""

_MAX_WAITING: Final = 32
"""The largest number of constraints that wait, separately for short and long ones."""

_SHORT_CHARACTERS: Final = 4096
"""Constraints up to this length, in characters, have a queue and a trial process of their own, so that they do not wait
for longer ones.
"""

_MAX_REMEMBERED: Final = 4096


class Grammar:
    """A compiled constraint, which makes a matcher for each answer."""

    def __init__(self, words: "_Words", matcher: LLMatcher, vocab_size: int, end_tokens: Sequence[int]) -> None:
        """Args:
        words: the vocabulary of the matcher.
        matcher: a matcher of llguidance that has not accepted a token yet.
        vocab_size: the rows of the model's embedding.
        end_tokens: the model's own end tokens.
        """
        self._words = words
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._end_tokens = end_tokens

    def matcher(self) -> Matcher:
        """Create the matcher that follows a further answer from its beginning."""
        return Matcher(self, self._matcher.deep_copy(), self._vocab_size, self._end_tokens)


class _Lane:
    """A queue of constraints, which compiles one at a time. There is one for short constraints and one for long ones.

    Attributes:
        lock: held while a constraint is compiled.
        trials: tries a constraint in another process first; used only while the lock is held.
        waiting: a semaphore that limits the number of constraints that wait or are compiled.
        slots: where callers on the event loop wait for their turn; shorter constraints come first.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.trials = Trials()
        self.waiting = threading.BoundedSemaphore(_MAX_WAITING)
        self.slots = FairSlots(1)


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
        self._words = _Words(tokenizer, vocab_size)
        self._grammars: WeakSet[Grammar] = WeakSet()
        self._short, self._long = _Lane(), _Lane()
        self._tried_lock = threading.Lock()
        self._tried: OrderedDict[bytes, None] = OrderedDict()

    def compile(self, constraint: Constraint) -> Grammar:
        """Compile a constraint. This takes milliseconds to seconds, so do not call it on the event loop's thread.

        Raises:
            InvalidArgumentError: the constraint is wrong, no answer can meet it, or it is too complex.
            UnavailableError: too many constraints wait or are in use.
        """
        with self._place(constraint) as lane:
            return self._compile(constraint, lane)

    async def compile_in_turn(self, constraint: Constraint) -> Grammar:
        """Compile a constraint in a thread when it is its turn; see `compile`. Call it on the event loop's thread. If
        the caller is cancelled, a compilation that waits is dropped, and one that runs is interrupted.
        """
        with self._place(constraint) as lane:
            async with lane.slots.slot(len(constraint.text)):
                work = asyncio.ensure_future(in_thread(self._compile, constraint, lane))
                try:
                    return await asyncio.shield(work)
                except asyncio.CancelledError:
                    # Wait until the thread has ended, since the next constraint is compiled when this block is left.
                    await in_thread_or_here(lane.trials.interrupt)
                    await asyncio.wait([work])
                    if not work.cancelled():
                        work.exception()
                    raise

    def close(self) -> None:
        """End the processes that try constraints, each when it has tried its current one."""
        for lane in (self._short, self._long):
            with lane.lock:
                lane.trials.close()

    @contextlib.contextmanager
    def _place(self, constraint: Constraint) -> Generator[_Lane]:
        if len(self._grammars) >= MAX_GRAMMARS:
            raise UnavailableError(
                f"{len(self._grammars)} constraints are in use, of at most {MAX_GRAMMARS}; try again later"
            )
        lane = self._short if len(constraint.text) <= _SHORT_CHARACTERS else self._long
        if not lane.waiting.acquire(blocking=False):
            raise UnavailableError(f"{_MAX_WAITING} constraints wait to be compiled, as many as may; try again later")
        try:
            yield lane
        finally:
            lane.waiting.release()

    def _compile(self, constraint: Constraint, lane: _Lane) -> Grammar:
        text = grammar_of(constraint)
        with lane.lock:
            self._try(text, lane)
            matcher = LLMatcher(self._words.tokenizer, text, log_level=0, limits=parser_limits(text))
        require_usable(matcher)
        grammar = Grammar(self._words, matcher, self._vocab_size, self._end_tokens)
        self._grammars.add(grammar)
        return grammar

    def _try(self, text: str, lane: _Lane) -> None:
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        with self._tried_lock:
            is_known = digest in self._tried
        if not is_known:
            lane.trials.require(text)
        with self._tried_lock:
            self._tried[digest] = None
            self._tried.move_to_end(digest)
            if len(self._tried) > _MAX_REMEMBERED:
                self._tried.popitem(last=False)


class _Words:
    """llguidance's form of a vocabulary. Who uses it, or a matcher with it, must hold this object.

    Attributes:
        tokenizer: llguidance's tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        # Refer to this object weakly: Python's garbage collector does not see what llguidance's tokenizer refers to, so
        # a cycle through it would never be freed.
        words = _Vocabulary(tokenizer, vocab_size, ref(self))
        eos = list(tokenizer.tokens.eos) or None
        try:
            self.tokenizer = LLTokenizer(words, eos_token=eos)  # pyright: ignore[reportArgumentType]
        except BaseException as error:
            if not is_panic(error):
                raise
            raise InvalidArgumentError(
                f"the tokenizer's vocabulary cannot be used for structured output, perhaps since a token is very long: "
                f"{printable(str(error))}"
            ) from error


class _Vocabulary:
    """Adapts a tokenizer to the interface of llguidance."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, words: "ReferenceType[_Words]") -> None:
        self._tokenizer = tokenizer
        self._bytes = tokenizer.token_bytes
        self._words = words
        self.eos_token_id = next(iter(tokenizer.tokens.eos), None)
        # A token without bytes is never allowed. Special tokens get names that begin with a byte that UTF-8 does not
        # have, so that no text contains them.
        self.tokens = [*self._bytes, *[b""] * (vocab_size - len(self._bytes))]
        self.special_token_ids = sorted({*tokenizer.special_ids, *tokenizer.tokens.eos})
        for token in self.special_token_ids:
            self.tokens[token] = b"\xff" + str(tokenizer.backend.id_to_token(token)).encode()

    def __call__(self, text: str) -> Iterable[int]:
        """The tokens of a text that the grammar requires, as the model would most likely write them."""
        ids = self._tokenizer.encode(text, add_special_tokens=False)
        if b"".join(self._bytes[each] for each in ids) == text.encode():
            return ids
        # This tokenizer puts a space before a text or changes letters, so tokens are chosen greedily by their bytes.
        words = self._words()
        assert words is not None
        return words.tokenizer.greedy_tokenize(text)
