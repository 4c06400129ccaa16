"""Computes the first steps of a decoder, in which the runtime prepares itself, so that no request waits for that."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from triune.backends.gate.logits import NO_MEMORY
from triune.core.clock import Clock
from triune.core.decoder import DecoderExecutable, DecoderStep
from triune.core.errors import InvalidArgumentError
from triune.engine.memory import Memory

_log = logging.getLogger(__name__)

_NS = 1_000_000_000

MOST_SECONDS = 30
"""After this time, in seconds, no further step begins."""

_PROMPT = 512
_COUNTS = (1, 8, 32)


def warm_up(
    decoder: DecoderExecutable, memory: Memory, clock: Clock, *, name: str, num_tokens: int, num_sequences: int
) -> None:
    """Compute one token, and, if `num_tokens` is above 1, steps like those of requests. Give more than 1 on a GPU,
    whose kernels are compiled when they are first needed.

    This writes to the blocks of the cache, so no sequence may use them yet.

    Args:
        decoder: the decoder.
        memory: the encoder's output for each sequence; empty if the model has no encoder.
        clock: the clock.
        name: the model's name, for the log.
        num_tokens: the most tokens of a step. With at most 1, only one token is computed.
        num_sequences: the most sequences of a step.

    Raises:
        InvalidArgumentError: the model's logits are NaN or infinite.
    """
    logits = decoder.run(step_of(decoder, [(0, 1)], memory))
    if not np.isfinite(logits.max()):
        raise InvalidArgumentError("the model's logits for token 0 are NaN or infinite; its weights are broken")
    began = clock.now_ns()
    done, steps = 0, list(_ladder(decoder, memory, num_tokens, num_sequences))
    for step in steps:
        if clock.now_ns() - began > MOST_SECONDS * _NS:
            _log.warning("Model '%s': %d of %d first steps took over %d s", name, done, len(steps), MOST_SECONDS)
            break
        _compute(decoder, step)
        done += 1
    if done:
        _log.info("Model '%s': %d first steps took %.1f s", name, done, (clock.now_ns() - began) / _NS)


def _compute(decoder: DecoderExecutable, step: DecoderStep) -> None:
    """Run a step in each way that the engine uses: for logits, for the most probable tokens, and with input tokens that
    the previous step is still computing.
    """
    decoder.run(step)
    before = decoder.begin(step)
    if decoder.can_run_ahead and len(step.input_ids) == len(step.past_lengths):
        before = decoder.begin(replace(step, sources=np.arange(len(step.input_ids))), before)
    before.read()


def _ladder(decoder: DecoderExecutable, memory: Memory, num_tokens: int, num_sequences: int) -> Iterator[DecoderStep]:
    """Yield steps like those of requests: the tokens of one prompt, and then one token of each of several sequences,
    whose past lengths are equal or differ.
    """
    if num_tokens <= 1:
        return
    yield step_of(decoder, [(0, min(_PROMPT, num_tokens, decoder.num_blocks * decoder.block_size))], memory)
    for count in _COUNTS:
        if count <= min(num_sequences, num_tokens, decoder.num_blocks):
            yield step_of(decoder, [(1, 1)] * count, memory)
            if count > 1:
                yield step_of(decoder, [(1 + each % 2, 1) for each in range(count)], memory)


def step_of(
    decoder: DecoderExecutable, sequences: Sequence[tuple[int, int]], memory: Memory = NO_MEMORY
) -> DecoderStep:
    """A step of `sequences`, each given by its numbers of past and new tokens. All tokens are 0. Logits are computed
    for the last token of each sequence. Each sequence reads `memory`.
    """
    past, new = (np.array(each, np.int32) for each in zip(*sequences, strict=True))
    held = -(-(past + new) // decoder.block_size)
    begins = np.cumsum([0, *new])
    return DecoderStep(
        np.zeros(sum(count for _, count in sequences), np.int64),
        np.concatenate([first + np.arange(count) for first, count in sequences]),
        past,
        begins.astype(np.int32),
        np.arange(held.sum(), dtype=np.int32),
        np.cumsum([0, *held]).astype(np.int32),
        begins[1:] - 1,
        {name: np.repeat(rows, len(sequences), axis=0) for name, rows in memory.items()},
    )
