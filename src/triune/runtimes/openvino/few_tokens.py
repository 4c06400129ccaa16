"""Measure up to how many tokens of a step the first of a decoder's two programs is faster than the second."""

import time
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import numpy as np

from triune.core.decoder import DecoderStep

MOST_SEQUENCES: Final = 64
"""The largest number of sequences in a measured step. The cache needs at least this many blocks of 16 tokens or more,
one for each sequence.
"""

_PROMPT_TOKENS: Final = 512
"""The number of tokens of a prompt that is measured."""

_NUM_TIMED: Final = 12
"""How often each program computes a step of up to 8 tokens. The first two times are not counted."""

_NUM_TIMED_LONG: Final = 5
"""How often each program computes a longer step. The first two times, which include the creation of kernels, are not
counted.
"""

Run: TypeAlias = Callable[[DecoderStep], object]


def most_few_tokens(few: Run, many: Run, widths: Mapping[str, int]) -> int | None:
    """The most tokens of a step that `few` computes faster than `many`; 0 if it computes none faster, None if it
    computes all steps faster.

    Steps of 1, 2, 4, ... 64 sequences with one new token each are timed, as in decoding. If `few` is faster at 64, a
    prompt of `_PROMPT_TOKENS` tokens is timed too.

    Args:
        few: the program for steps with few tokens.
        many: the program for steps with many tokens.
        widths: the widths of the encoder outputs that a step reads, by name.
    """
    fastest = 0
    has_lost = False
    count = 1
    while count <= MOST_SEQUENCES:
        if _is_faster(few, many, _new_sequences(count, 1, widths)):
            fastest, has_lost = count, False
        elif has_lost:
            break
        else:
            # A single slower measurement of `few` may be noise from other work on the machine. Only two in a row count.
            has_lost = True
        count *= 2
    if fastest == MOST_SEQUENCES and _is_faster(few, many, _new_sequences(1, _PROMPT_TOKENS, widths)):
        return None
    return fastest


def _is_faster(few: Run, many: Run, step: DecoderStep) -> bool:
    """Whether `few` computes the step faster. They run alternately, so that other work on the machine slows down
    both, and their least times are compared, without the first two runs.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(_NUM_TIMED if len(step.input_ids) <= 8 else _NUM_TIMED_LONG):
        for run, its_times in zip((few, many), times, strict=True):
            begin = time.perf_counter()
            run(step)
            its_times.append(time.perf_counter() - begin)
    least, least_of_many = (min(each[2:]) for each in times)
    return least < least_of_many


def _new_sequences(count: int, length: int, widths: Mapping[str, int]) -> DecoderStep:
    """A step of `count` new sequences of `length` tokens, each with one source token of an encoder if the model reads
    one. Logits are wanted for each sequence's last token. Blocks are assumed to have at least 16 tokens.
    """
    per_sequence = -(-length // 16)
    begins = np.arange(count + 1, dtype=np.int32)
    num_tokens = count * length
    # All positions are 0: for a position beyond the model's largest one, the plugin would read outside its tables.
    zeros = np.zeros(num_tokens, np.int64)
    return DecoderStep(
        zeros,
        zeros,
        np.zeros(count, np.int32),
        begins * np.int32(length),
        np.arange(count * per_sequence, dtype=np.int32),
        begins * np.int32(per_sequence),
        begins[1:].astype(np.int64) * length - 1,
        {name: np.zeros((count, 1, width), np.float32) for name, width in widths.items()},
    )
