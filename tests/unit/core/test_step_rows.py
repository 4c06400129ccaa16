"""A step's tokens as rows, and the slots of their keys and values."""

import numpy as np

from triune.core.decoder import DecoderStep
from triune.core.step_rows import ROW_NAMES, rows_of, slots_of

STEP = DecoderStep(
    np.array([7, 8, 9, 5]),
    np.array([0, 1, 2, 6]),
    np.array([0, 5, 6], np.int32),
    np.array([0, 3, 3, 4], np.int32),
    np.array([4, 2, 6, 1, 3], np.int32),
    np.array([0, 1, 3, 5], np.int32),
    np.array([3]),
)
"""Three sequences: one of three new tokens, one without new tokens, and one of one token behind six others."""


def test_each_sequence_has_a_row() -> None:
    rows = rows_of(STEP)
    assert rows.keys() == ROW_NAMES
    assert rows["token_rows"].tolist() == [[0, 1, 2], [0, 0, 0], [3, 0, 0]]
    assert rows["token_places"].tolist() == [0, 1, 2, 6]
    assert rows["token_counts"].tolist() == [3, 0, 1]
    assert rows["block_table"].tolist() == [[4, 0], [2, 6], [1, 3]]


def test_places_are_those_of_the_tokens_in_the_rows() -> None:
    rows = rows_of(STEP)
    assert rows["token_rows"].reshape(-1)[rows["token_places"]].tolist() == [0, 1, 2, 3]


def test_slots_are_counted_from_the_first_block() -> None:
    assert slots_of(STEP, 4).tolist() == [16, 17, 18, 14]
