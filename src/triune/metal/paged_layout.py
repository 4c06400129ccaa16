"""How the sequences of a step are arranged for `triune::PagedAttention` in MLX: in groups of about as many tokens."""

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
        count: the sequences.
        tokens: the new tokens of each; of some sequences perhaps fewer.
        blocks: the blocks of each; 0 if none has tokens in the cache, so that only new tokens are seen.
        length: the tokens of each at the end of the step, if all have as many, and as many new ones; else 0. Such a
            group needs no mask but the causal one.
    """

    count: int
    tokens: int
    blocks: int
    length: int


@dataclass(frozen=True, slots=True)
class Layout:
    """A step in groups.

    Attributes:
        groups: the groups.
        arrays: by name: `slots` INT32 [tokens], where the tokens' keys and values are written, counted in tokens from
            the first block; for group N `past.N` INT32 [count], tokens in the cache, and `table.N` INT32 [count,
            blocks]. Unless tokens are in order also `rows.N` INT32 [count, tokens], the step's tokens, and `back` INT32
            [tokens], each token's place among those of all groups.
        is_in_order: whether the tokens of the only group are those of the step.
    """

    groups: tuple[Group, ...]
    arrays: Mapping[str, NDArray[np.int32]]
    is_in_order: bool


def layout_of(step: DecoderStep, block_size: int) -> Layout:
    """Arrange a step, which fits the cache, in groups."""
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
