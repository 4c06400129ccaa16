"""Measures how fast decoders generate text on the units of this machine, and with how many joules."""

import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from triune.api.engine import Engine
from triune.compression.report import Timed
from triune.core.errors import TriuneError
from triune.core.units import Unit

_BATCH: Final = 8
"""How many answers are generated at once, where tokens a second are measured."""

_TOKENS: Final = 32
"""How many tokens an answer has."""

_ROUNDS: Final = 3
_MOST_CONTEXT: Final = 512
_CACHE_BYTES: Final = 1 << 28
_MOST_PROMPT: Final = 64
"""How many tokens a prompt has at most."""


def prompt_tokens(context: int) -> int:
    """How many tokens a prompt may have in a model's context of `context` tokens, so that the answer fits, too."""
    return max(1, min(_MOST_PROMPT, context // 2 - _TOKENS))


def decoder_speeds(paths: Sequence[Path], unit: Unit, prompt: str, context: int) -> Sequence[Timed]:
    """Measure decoders on a unit. They answer in turn, so that other work on the machine slows down all of them.

    Args:
        paths: the checkpoints.
        unit: the unit to run them on.
        prompt: the text that they continue, of `prompt_tokens` tokens.
        context: the longest context of the models, in tokens.

    Returns:
        for each checkpoint the median milliseconds of a token after the first one, of one answer alone (`latency_ms`);
            the median tokens a second of `batch` answers at once (`rows_per_second`); and the joules of a token in
            these (`joules_per_row`).
    """
    with ExitStack() as stack:
        engines: dict[Path, Engine] = {}
        failures: dict[Path, str] = {}
        for path in paths:
            try:
                engine = Engine(path, unit.value, context_tokens=min(context, _MOST_CONTEXT), cache_bytes=_CACHE_BYTES)
                engines[path] = stack.enter_context(engine)
                _run(engine, prompt, _BATCH)
            except TriuneError as error:
                engines.pop(path, None)
                failures[path] = str(error)
        runs: dict[Path, list[tuple[float, float, float | None, str]]] = {path: [] for path in engines}
        for _ in range(_ROUNDS):
            for path, engine in engines.items():
                milliseconds, _, _, _ = _run(engine, prompt, 1)
                _, rate, joules, why = _run(engine, prompt, _BATCH)
                runs[path].append((milliseconds, rate, joules, why))
        return [_timed(unit, runs[path]) if path in runs else _missing(unit, failures[path]) for path in paths]


def _timed(unit: Unit, runs: Sequence[tuple[float, float, float | None, str]]) -> Timed:
    joules = [each for _, _, each, _ in runs if each is not None]
    return Timed(
        unit.value,
        statistics.median(milliseconds for milliseconds, _, _, _ in runs),
        statistics.median(rate for _, rate, _, _ in runs),
        _BATCH,
        statistics.median(joules) if joules else None,
        "" if joules else runs[-1][3],
    )


def _missing(unit: Unit, reason: str) -> Timed:
    return Timed(unit.value, None, None, 1, None, reason)


def _run(engine: Engine, prompt: str, count: int) -> tuple[float, float, float | None, str]:
    """Generate answers at once. Returns the milliseconds of a token after the first, the tokens a second of all
    answers, the joules of a token, or None, and why these are not known.
    """
    prompts = [f"{number} {prompt}" for number in range(count)]
    answers = engine.generate(prompts, max_tokens=_TOKENS, temperature=0.0, is_end_ignored=True)
    # From the first token of any answer to the last token of all: they were asked for at the same time.
    spent = max(each.usage.total_ns for each in answers) - min(each.usage.first_token_ns for each in answers)
    num_tokens = sum(each.usage.num_tokens - 1 for each in answers)
    bills: list[Mapping[str, object]] = [engine.energy(each) for each in answers]
    joules = [float(str(each["decode_joules"])) for each in bills if "decode_joules" in each]
    known = sum(joules) / num_tokens if len(joules) == count else None
    why = next((str(each["reason"]) for each in bills if "reason" in each), "")
    return spent / 1e6 / (num_tokens / count), num_tokens / (spent / 1e9), known, why
