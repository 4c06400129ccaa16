"""Steps of one new token of each sequence as one array."""

from dataclasses import replace

import numpy as np
import pytest
from onnx import GraphProto, TensorProto, helper

from triune.core.decoder import DecoderStep
from triune.runtimes.mlx.step_inputs import Ids, is_of_single_tokens, single_tokens

GRAPH = helper.make_graph(
    [helper.make_node("Gather", ["words", "input_ids"], ["x"])],
    "g",
    [],
    [],
    initializer=[helper.make_tensor("words", TensorProto.FLOAT, (50, 1), [0.0] * 50)],
)


def step(lengths: list[int]) -> DecoderStep:
    held = [-(-(length + 1) // 16) for length in lengths]
    count = len(lengths)
    return DecoderStep(
        np.arange(count) + 10,
        np.array(lengths),
        np.array(lengths, np.int32),
        np.arange(count + 1, dtype=np.int32),
        np.arange(sum(held), dtype=np.int32) + 5,
        np.cumsum([0, *held]).astype(np.int32),
        np.arange(count),
    )


@pytest.mark.parametrize(
    ("lengths", "rows", "columns"), [([3], 1, 8), ([40, 0, 16], 4, 8), ([150] * 9, 12, 16), ([5] * 13, 16, 8)]
)
def test_rows_and_columns(lengths: list[int], rows: int, columns: int) -> None:
    given, count = step(lengths), len(lengths)
    found = single_tokens(given, Ids(GraphProto()))
    assert (found.rows, found.columns) == (rows, columns)
    ids, positions, past, sources = found.array[: 4 * rows].reshape(4, rows)
    assert ids[:count].tolist() == given.input_ids.tolist()
    assert positions[:count].tolist() == past[:count].tolist() == lengths
    assert (past[count:] == -1).all()
    assert (sources == -1).all()
    table = found.array[4 * rows :].reshape(rows, columns)
    for row, begin, end in zip(table, given.block_indices_begins[:-1], given.block_indices_begins[1:], strict=False):
        assert row[: end - begin].tolist() == given.block_indices[begin:end].tolist()
        assert not row[end - begin :].any()


def test_tokens_that_are_not_known_yet_have_their_places() -> None:
    found = single_tokens(replace(step([3, 4]), sources=np.array([-1, 7])), Ids(GraphProto()))
    assert found.array[6:8].tolist() == [-1, 7]


def test_ids_beyond_a_table_become_its_last_row() -> None:
    given = replace(step([3, 4]), input_ids=np.array([-3, 77]))
    assert single_tokens(given, Ids(GRAPH)).array[:2].tolist() == [0, 49]


def test_which_steps_are_of_single_tokens() -> None:
    given = step([3, 4])
    assert is_of_single_tokens(given)
    assert not is_of_single_tokens(replace(given, logits_indices=np.array([1, 0])))
    assert not is_of_single_tokens(replace(given, logits_indices=np.array([1])))
    assert not is_of_single_tokens(replace(given, subsequence_begins=np.array([0, 0, 2], np.int32)))
