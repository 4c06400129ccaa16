"""Sets of inputs that a source takes, and models whose weights are beside them."""

from collections.abc import Mapping

import numpy as np
import pytest
from onnx import helper

from support.lowered import FLOAT, INT64, model_of
from triune.core.datatypes import Array
from triune.core.errors import UnsupportedError
from triune.graph.conversion.shapes import parse_shapes
from triune.graph.verify import OnnxModel, Verdict, samples_of, verify


def test_indices_are_within_what_they_index_and_sets_that_are_refused_are_passed_over() -> None:
    """The second index is not seen to be one: it is shifted."""
    nodes = [
        helper.make_node("Gather", ["rows", "i"], ["a"]),
        helper.make_node("Cast", ["j"], ["f"], to=FLOAT),
        helper.make_node("Cast", ["f"], ["back"], to=INT64),
        helper.make_node("Gather", ["rows", "back"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    model = model_of(
        nodes, [("i", INT64, [2]), ("j", INT64, [2])], [("y", FLOAT, [2])], rows=np.arange(5, dtype=np.float32)
    )
    sets = samples_of(model, {}, {}, is_half=False)
    assert all((each.arrays["i"] < 5).all() for each in sets)
    source = OnnxModel(model)
    (verdict,) = verify(sets, source.run, source.run, source, 1e-4)
    assert verdict.verdict is Verdict.RIGHT
    (verdict,) = verify(sets, source.run, lambda arrays: {"y": source.run(arrays)["y"] * 2}, source, 1e-4)
    assert verdict.verdict is Verdict.WRONG


def test_a_source_that_takes_nothing_is_not_verified() -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    model = model_of(nodes, [("x", FLOAT, ["n"])], [("y", FLOAT, [7])], shape=np.array([7]))
    sets = samples_of(model, {}, {}, is_half=False)
    otherwise = samples_of(model, parse_shapes(["x=7"]), {}, is_half=True)
    source = OnnxModel(model)
    with pytest.raises(UnsupportedError, match="--input"):
        verify(sets, source.run, source.run, source, 1e-4)
    (verdict,) = verify(sets, source.run, source.run, source, 1e-4, otherwise=otherwise)
    assert verdict.shape == (7,)


def test_dimensions_of_a_name_have_the_size_of_what_is_given() -> None:
    nodes = [helper.make_node("Mul", ["x", "s"], ["y"])]
    model = model_of(nodes, [("x", FLOAT, ["n", "m"]), ("s", FLOAT, ["n", 1])], [("y", FLOAT, ["n", "m"])])
    given = np.ones((6, 1), np.float32)
    for each in samples_of(model, parse_shapes(["x=1..8,2..4"]), {"s": given}, is_half=False):
        assert each.arrays["s"] is given
        assert each.arrays["x"].shape[0] == 6
        assert 2 <= each.arrays["x"].shape[1] <= 4


def test_large_weights_are_handed_over_beside_the_model() -> None:
    rows = np.random.default_rng(0).random((600, 600), np.float32)
    model = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], [("x", FLOAT, [1, 600])], [("y", FLOAT, [1, 600])], w=rows
    )
    source = OnnxModel(model)
    x = np.ones((1, 600), np.float32)
    np.testing.assert_allclose(source.run({"x": x})["y"], x @ rows, rtol=1e-5)
    assert source.uncertainty({"x": x})["y"].largest < 1e-2


@pytest.mark.parametrize("is_half", [False, True])
def test_a_cast_to_int64_is_verified_beyond_int32_where_floats_are(is_half: bool) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=INT64)]
    model = model_of(nodes, [("x", FLOAT, [8])], [("y", INT64, [8])])
    source = OnnxModel(model)
    sets = samples_of(model, {}, {}, is_half=is_half)
    assert (max(each.largest for each in sets) > 65504) is not is_half
    narrow = verify(
        sets, source.run, lambda given: {"y": source.run(given)["y"].clip(-(2**31), 2**31 - 1)}, source, 1e-4
    )
    assert [each.verdict for each in narrow] == [Verdict.RIGHT if is_half else Verdict.WRONG]


def test_what_two_runs_of_the_source_differ_by_is_random_and_neither_right_nor_wrong() -> None:
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["noise"], scale=1.0),
        helper.make_node("Mul", ["noise", "nothing"], ["little"]),
        helper.make_node("Add", ["x", "noise"], ["random"]),
        helper.make_node("Add", ["x", "little"], ["steady"]),
        helper.make_node("Mul", ["x", "x"], ["square"]),
    ]
    outputs = [(name, FLOAT, [8]) for name in ("random", "steady", "square")]
    model = model_of(nodes, [("x", FLOAT, [8])], outputs, nothing=np.float32(0))
    source = OnnxModel(model)
    assert source.is_random
    found = verify(samples_of(model, {}, {}, is_half=False), source.run, source.run, source, 1e-4)
    assert {each.name: (each.verdict, each.is_random) for each in found} == {
        "random": (Verdict.UNKNOWN, True),
        "steady": (Verdict.RIGHT, False),
        "square": (Verdict.RIGHT, False),
    }

    def wrong(arrays: Mapping[str, Array]) -> dict[str, Array]:
        return {name: array + np.float32(9) for name, array in source.run(arrays).items()}

    found = verify(samples_of(model, {}, {}, is_half=False), source.run, wrong, source, 1e-4)
    assert [each.verdict for each in found] == [Verdict.UNKNOWN, Verdict.WRONG, Verdict.WRONG]
