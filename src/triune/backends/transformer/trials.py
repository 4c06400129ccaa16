"""Short trials of a model's decoders on several units: measures how long a step of each takes, alone and while the
other units compute.
"""

import logging
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Final

from triune.backends.attempt import Attempt
from triune.backends.transformer.units import UnitDecoder
from triune.backends.transformer.warm_up import step_of
from triune.core.clock import Clock
from triune.core.decoder import DecoderExecutable
from triune.core.threads import start_thread

MOST_SECONDS: Final = 10.0
"""After this time, in seconds, no further step begins."""

_PROMPTS: Final = (32, 256)
_ANSWERS: Final = (1, 8)
_PAST: Final = 64
"""The number of tokens that each sequence has in the cache when a step of answers is tried."""

_NUM_RUNS: Final = 5
_NS: Final = 1_000_000_000

_log = logging.getLogger(__name__)


def measure(units: Sequence[UnitDecoder], clock: Clock, attempt: Attempt, *, name: str, step_tokens: int) -> None:
    """Measure how long steps take on each unit, and record that in `UnitDecoder.rates`. This overwrites blocks of the
    caches, so no sequence may use them yet.

    Args:
        units: the model's decoders, of the same machine.
        clock: the clock.
        attempt: cancels the build.
        name: the model's name, for the log.
        step_tokens: the most tokens of a step.
    """
    end_ns = clock.now_ns() + int(MOST_SECONDS * _NS)
    found: dict[tuple[int, bool, tuple[int, int], int], list[int]] = {}
    for _ in range(_NUM_RUNS):
        for is_beside in (False, True):
            for place, each in enumerate(units):
                others = [other for other in units if other is not each] if is_beside else []
                with _busy(others):
                    memory = each.memory([0])
                    for shape, count in _steps(each.decoder, step_tokens):
                        begun_ns = clock.now_ns()
                        if begun_ns < end_ns:
                            each.decoder.begin(step_of(each.decoder, [shape] * count, memory)).read()
                            key = (place, is_beside, shape, count)
                            found.setdefault(key, []).append(clock.now_ns() - begun_ns)
                attempt.check()
    for (place, is_beside, (_, num_new), count), durations_ns in found.items():
        counts = (num_new, 0) if num_new > 1 else (0, count)
        # Leave out the first run, which includes the runtime's preparations, unless it is the only one.
        middle_ns = round(median(durations_ns[1:] or durations_ns))
        units[place].rates.record(*counts, middle_ns, is_beside=is_beside)
    for each in units:
        _time_copies(each, clock)
    if clock.now_ns() > end_ns:
        _log.warning("model '%s': trials of its units took %g s; some were left out", name, MOST_SECONDS)
    _log.info("Model '%s': %s", name, "; ".join(_told(each) for each in units))


def _steps(decoder: DecoderExecutable, step_tokens: int) -> Iterator[tuple[tuple[int, int], int]]:
    """The steps to try: ((tokens of a sequence in the cache, its new tokens), number of such sequences)."""
    most = min(step_tokens, decoder.num_blocks * decoder.block_size)
    for num_tokens in _PROMPTS:
        if num_tokens <= most:
            yield (0, num_tokens), 1
    for count in _ANSWERS:
        if count <= step_tokens and count * _blocks(decoder, _PAST + 1) <= decoder.num_blocks:
            yield (_PAST, 1), count


@contextmanager
def _busy(units: Sequence[UnitDecoder]) -> Generator[None]:
    """Keep the decoders of these units computing, each in a thread, until the context ends."""
    is_over = threading.Event()

    def compute(each: UnitDecoder) -> None:
        decoder = each.decoder
        step = step_of(decoder, [(0, 1)] * min(_ANSWERS[-1], decoder.num_blocks), each.memory([0]))
        while not is_over.is_set():
            decoder.begin(step).read()

    threads = [start_thread(lambda each=each: compute(each), "trial") for each in units]
    try:
        yield
    finally:
        is_over.set()
        for each in threads:
            each.join()


def _time_copies(each: UnitDecoder, clock: Clock) -> None:
    """Measure the time per token to copy keys and values out of the cache and into it."""
    decoder = each.decoder
    num_blocks = min(decoder.num_blocks, _blocks(decoder, _PAST))
    num_tokens, blocks = min(_PAST, num_blocks * decoder.block_size), range(num_blocks)
    for _ in range(2):
        begun_ns = clock.now_ns()
        tokens = decoder.read_tokens(blocks, num_tokens)
        read_ns = clock.now_ns()
        decoder.write_tokens(blocks, tokens)
        each.rates.out_ns = (read_ns - begun_ns) / num_tokens
        each.rates.in_ns = (clock.now_ns() - read_ns) / num_tokens


def _blocks(decoder: DecoderExecutable, num_tokens: int) -> int:
    return -(-num_tokens // decoder.block_size)


def _told(each: UnitDecoder) -> str:
    """The text for the log with the measurements of a unit."""
    rates, parts = each.rates, list[str]()
    for is_beside, where in ((False, "alone"), (True, "beside the others")):
        prompt_ns = rates.prompt_ns(_PROMPTS[-1], is_beside=is_beside)
        answers = " and ".join(f"{rates.answer_ns(count, is_beside=is_beside) / 1e6:.3g}" for count in _ANSWERS)
        speed = f"{_PROMPTS[-1] * 1e9 / prompt_ns:.0f} tokens of prompts a second" if prompt_ns else "no prompt"
        parts.append(f"{where} {speed}, {answers} ms a step of {_ANSWERS[0]} and {_ANSWERS[-1]} answers")
    return f"'{each.unit.value}' reads {', '.join(parts)}"
