"""Compiles a grammar first in a separate process: a hostile grammar may crash the process that compiles it, keep it
busy, or fill its memory.
"""

import json
import resource
import threading
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from triune.core.errors import InternalError, InvalidArgumentError, UnavailableError
from triune.engine.structured.endless import require_end
from triune.engine.structured.matcher import reason_of
from triune.hosting import Limits, WorkerEndedError, WorkerProcess

MAX_CPU_SECONDS: Final = 3
MAX_MEMORY_BYTES: Final = 1 << 29

_LIMITS: Final = Limits(load_seconds=60.0, memory_bytes=MAX_MEMORY_BYTES)
_STACK_BYTES: Final = 1 << 21
"""The stack of the process: a quarter of the smallest stack of the threads that use the grammar later. A grammar that
passes here cannot overflow theirs.
"""

PARSER_LIMITS: Final = {
    "max_items_in_row": 1000,
    "step_lexer_fuel": 100_000,
    "step_max_items": 25_000,
    "max_lexer_states": 20_000,
    "max_grammar_size": 200_000,
}
"""llguidance's own limits. Within them a step (one token) takes about 10 ms at most, and a state of the lexer about 1
KiB.
"""

_LEAST_FUEL: Final = 250_000
_FUEL_A_CHARACTER: Final = 8
_MOST_FUEL: Final = 1_000_000
"""The largest limit (llguidance calls it fuel) of the work to build the lexer of a grammar. A unit of fuel allows about
80 bytes of memory and half a microsecond. The largest published schemas (FHIR) need half a million units; a short text
that needs as much, such as `a{100000}`, is only repetition.
"""


def parser_limits(grammar: str) -> LLParserLimits:
    """The limits of llguidance for a grammar. The longer it is, the more work its lexer may take, up to _MOST_FUEL."""
    fuel = min(_MOST_FUEL, _LEAST_FUEL + _FUEL_A_CHARACTER * len(grammar))
    return LLParserLimits(**PARSER_LIMITS, initial_lexer_fuel=fuel, verbose_errors=False)  # pyright: ignore[reportArgumentType]


class Trials:
    """Compiles grammars in a separate process, which is kept for the next grammar. Used by one thread at a time."""

    def __init__(self) -> None:
        self._process: WorkerProcess | None = None
        # This lock guards the beginning and the end of a trial.
        self._lock = threading.Lock()
        self._is_trying = self._is_interrupted = False

    def require(self, grammar: str) -> None:
        """Make sure that a grammar can be compiled.

        Raises:
            InvalidArgumentError: the grammar is wrong or cannot be met, or compiling it exceeds a limit.
            InternalError: the system cannot start a process.
        """
        process = self._process or WorkerProcess("the trial of constraints", _LIMITS)
        with self._lock:
            self._process, self._is_trying = process, True
        try:
            try:
                process.work(partial(_try, grammar))
            finally:
                with self._lock:
                    was_interrupted, self._is_trying, self._is_interrupted = self._is_interrupted, False, False
                if was_interrupted:
                    # Drop the process: `interrupt` has killed it, perhaps only after the grammar was compiled.
                    self.close()
        except (WorkerEndedError, UnavailableError) as error:
            self.close()
            how = error.how if isinstance(error, WorkerEndedError) else "took too long"
            raise InvalidArgumentError(
                f"the constraint is too complex: the process that compiled it {how}; it may take {MAX_CPU_SECONDS} s "
                f"of CPU time, {MAX_MEMORY_BYTES >> 20} MiB of memory and {_STACK_BYTES >> 20} MiB of stack"
            ) from error

    def interrupt(self) -> None:
        """Interrupt the running trial, if there is one. May be called from any thread while another thread is in
        `require`.
        """
        with self._lock:
            if self._is_trying and self._process is not None:
                self._is_interrupted = True
                self._process.kill()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.free()
            self._process = None


@dataclass(slots=True)
class _Outcome:
    error: BaseException = field(default_factory=lambda: InternalError("the trial gave no outcome"))
    is_good: bool = False


def _try(grammar: str) -> None:
    """Compile a grammar, compute its first mask, and take a first step; runs in the separate process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hardest = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 1 + MAX_CPU_SECONDS, hardest))
    outcome = _Outcome()

    def work() -> None:
        try:
            matcher = LLMatcher(LLTokenizer("byte"), grammar, log_level=0, limits=parser_limits(grammar))
            require_usable(matcher)
            _require_step(matcher)
            for part in json.loads(grammar)["grammars"]:
                require_end(part.get("json_schema"))
            outcome.is_good = True
        except BaseException as error:  # noqa: BLE001 - the other thread raises it
            outcome.error = error

    threading.stack_size(_STACK_BYTES)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if not outcome.is_good:
        raise outcome.error


def _require_step(matcher: LLMatcher) -> None:
    """Check that an answer can have a first byte. Only at that point does the library report that the initial grammar
    is too large.
    """
    mask = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little", count=256)
    if mask.any() and not matcher.consume_token(int(mask.argmax())):
        raise InvalidArgumentError(f"the constraint is too complex: {reason_of(matcher)}")


def require_usable(matcher: LLMatcher) -> None:
    """Check that a grammar was compiled, and that an answer can begin.

    Raises:
        InvalidArgumentError: the grammar cannot be used; the message has the library's reason.
    """
    if not matcher.is_error():
        is_stuck = not any(matcher.compute_bitmask())
        if not matcher.is_error() and not is_stuck:
            return
    raise InvalidArgumentError(f"the constraint cannot be used: {reason_of(matcher)}")
