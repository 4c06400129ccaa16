"""Arranges the sequences of a step for `triune::PagedAttention` in MLX, in groups with similar numbers of tokens."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triune.core.decoder import DecoderStep
from triune.core.step_rows import slots_of


def coarse(size: int) -> int:
    """Round a size up to the next of 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, ... (four sizes for each power of
    two).
    """
    step = max(1 << (max(size - 1, 1).bit_length() - 3), 1) if size > 4 else 1
    return -(-size // step) * step


@dataclass(frozen=True, slots=True)
class Group:
    """Sequences that are computed together.

    Attributes:
        count: the number of sequences.
        tokens: the largest number of new tokens of a sequence.
        blocks: the number of cache blocks to read for each sequence; 0 if no sequence has tokens in the cache, so that
            only new tokens are read.
        length: the number of tokens of each sequence at the end of the step, if that number and the number of new
            tokens are the same for all sequences; else 0. Such a group needs only the causal mask.
    """

    count: int
    tokens: int
    blocks: int
    length: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The sequences of a step, arranged in groups.

    Attributes:
        groups: the groups.
        arrays: arrays by name. `slots` INT32 [tokens] has the position in the cache to which each token's keys and
            values are written, counted in tokens from the first block. For group N, `past.N` INT32 [count] has the
            number of tokens in the cache, and `table.N` INT32 [count, blocks] the cache blocks. Unless `is_in_order`,
            `rows.N` INT32 [count, tokens] has the indices of the group's tokens in the step, and `back` INT32 [tokens]
            the index of each token of the step in all groups together, whose sequences are padded to the same number of
            tokens.
        is_in_order: whether there is only one group, whose tokens are in the order of the step.
    """

    groups: tuple[Group, ...]
    arrays: Mapping[str, NDArray[np.int32]]
    is_in_order: bool


def layout_of(step: DecoderStep, block_size: int) -> Layout:
    """Arrange the sequences of a step in groups. The step must fit the cache."""
    new, begins = np.diff(step.subsequence_begins), step.subsequence_begins
    totals = step.past_lengths + new
    held = -(-totals // block_size)
    members: dict[tuple[int, bool], list[int]] = {}
    for which, (count, past) in enumerate(zip(new.tolist(), step.past_lengths.tolist(), strict=True)):
        if count:
            members.setdefault((coarse(count), past == 0 < count - 1), []).append(which)
    groups: list[Group] = []
    arrays: dict[str, NDArray[np.int32]] = {"slots": slots_of(step, block_size).astype(np.int32)}
    back, place = np.zeros(len(step.input_ids), np.int32), 0
    for index, ((_, is_fresh), sequences) in enumerate(members.items()):
        counts, lengths = new[sequences], totals[sequences]
        tokens, blocks = int(counts.max()), 0 if is_fresh else int(held[sequences].max())
        is_even = bool((counts == tokens).all() and (lengths == lengths[0]).all())
        within = np.arange(tokens, dtype=np.int32)
        is_token = within < counts[:, None]
        rows = np.where(is_token, begins[sequences][:, None] + within, 0).astype(np.int32)
        back[rows[is_token]] = place + np.flatnonzero(is_token)
        arrays |= {f"rows.{index}": rows, f"past.{index}": step.past_lengths[sequences]}
        if blocks:
            places = np.arange(blocks)
            firsts = step.block_indices_begins[sequences][:, None]
            is_held = places < held[sequences][:, None]
            arrays[f"table.{index}"] = np.where(is_held, step.block_indices[np.where(is_held, firsts + places, 0)], 0)
        groups.append(Group(len(sequences), tokens, blocks, int(lengths[0]) if is_even else 0))
        place += rows.size
    is_in_order = len(groups) == 1 and place == len(back) and bool((back == np.arange(place)).all())
    if is_in_order:
        del arrays["rows.0"]
    else:
        arrays["back"] = back
    return Layout(tuple(groups), arrays, is_in_order)
