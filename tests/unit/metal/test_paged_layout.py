"""How steps are arranged in groups."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triune.core.decoder import DecoderStep
from triune.metal.paged_layout import coarse, layout_of

BLOCK_SIZE, NUM_BLOCKS = 4, 400


def step_of(sequences: list[tuple[int, int]]) -> DecoderStep:
    """A step of sequences with (past, new) tokens each, whose blocks are distinct."""
    past, new = (np.array(each, np.int32) for each in zip(*sequences, strict=True))
    held = -(-(past + new) // BLOCK_SIZE)
    positions = np.concatenate([start + np.arange(count) for start, count in sequences])
    return DecoderStep(
        np.arange(new.sum()),
        positions,
        past,
        np.cumsum([0, *new]).astype(np.int32),
        np.random.default_rng(0).permutation(NUM_BLOCKS)[: held.sum()].astype(np.int32),
        np.cumsum([0, *held]).astype(np.int32),
        np.arange(1),
    )


@given(st.integers(1, 5000))
def test_sizes_are_padded_by_a_quarter_at_most(size: int) -> None:
    assert size <= coarse(size) <= max(size * 5 / 4, 4)
    assert coarse(coarse(size)) == coarse(size)


def test_few_sizes_stand_for_many() -> None:
    assert len({coarse(size) for size in range(1, 1025)}) == 36


sequences_of = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 30)), min_size=1, max_size=12)


@given(sequences_of)
def test_every_token_is_written_and_read_where_it_belongs(sequences: list[tuple[int, int]]) -> None:
    step = step_of(sequences)
    step.require_fitting(NUM_BLOCKS, BLOCK_SIZE)
    layout = layout_of(step, BLOCK_SIZE)
    num_tokens, arrays = len(step.input_ids), layout.arrays
    slots = arrays["slots"]
    assert len(slots) == len(set(slots.tolist())) == num_tokens
    if layout.is_in_order:
        (group,) = layout.groups
        assert group.count * group.tokens == num_tokens
        arrays = {**arrays, "rows.0": np.arange(num_tokens).reshape(group.count, group.tokens)}
    else:
        places = np.concatenate([arrays[f"rows.{index}"].reshape(-1) for index in range(len(layout.groups))])
        np.testing.assert_array_equal(places[arrays["back"]], np.arange(num_tokens))
    for index, group in enumerate(layout.groups):
        rows, past = (arrays[f"{name}.{index}"] for name in ("rows", "past"))
        table = arrays.get(f"table.{index}", np.zeros((group.count, 0), np.int32))
        assert rows.shape == (group.count, group.tokens)
        assert table.shape == (group.count, group.blocks)
        for row in range(group.count):
            which = np.searchsorted(step.subsequence_begins, rows[row, 0], side="right") - 1
            if group.blocks and past[row] == step.past_lengths[which]:
                # The slot of the first new token is in the block of the table that its position says.
                block = table[row, past[row] // BLOCK_SIZE]
                assert slots[rows[row, 0]] == block * BLOCK_SIZE + past[row] % BLOCK_SIZE or rows[row, 0] == 0


def test_sequences_without_a_past_see_new_tokens_alone() -> None:
    layout = layout_of(step_of([(0, 8), (0, 7), (3, 8), (9, 1)]), BLOCK_SIZE)
    assert [(group.count, group.tokens, group.blocks, group.length) for group in layout.groups] == [
        (1, 8, 0, 8),
        (1, 7, 0, 7),
        (1, 8, 3, 11),
        (1, 1, 3, 10),
    ]


@pytest.mark.parametrize("count", [1, 3, 8])
def test_a_step_of_single_tokens_is_one_group_in_order(count: int) -> None:
    layout = layout_of(step_of([(5 + each, 1) for each in range(count)]), BLOCK_SIZE)
    assert layout.is_in_order
    assert [(group.count, group.tokens) for group in layout.groups] == [(count, 1)]


@pytest.mark.parametrize(
    ("sequences", "length"), [([(5, 1), (5, 1)], 6), ([(5, 1), (6, 1)], 0), ([(5, 9), (5, 10)], 0)]
)
def test_only_sequences_of_one_length_need_no_mask(sequences: list[tuple[int, int]], length: int) -> None:
    assert [group.length for group in layout_of(step_of(sequences), BLOCK_SIZE).groups] == [length]
