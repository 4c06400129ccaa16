"""Masks, divisors and lengths are seen behind what leaves their elements as they are, and made up accordingly."""

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from support.lowered import BOOL, FLOAT, INT64, model_of
from triune.graph.audit import inputs_of_model, revealing_inputs
from triune.graph.audit.uses import Uses, uses_of

INT32 = TensorProto.INT32
LOWEST = np.float32(-3.4e38)


def mask(*nodes: Any, elem_type: int = INT64, huge: Any = LOWEST) -> Any:
    return model_of(
        [
            helper.make_node("Unsqueeze", ["m", "axes"], ["a"]),
            helper.make_node("Cast", ["a"], ["b"], to=FLOAT),
            *nodes,
            helper.make_node("Mul", ["c", "huge"], ["d"]),
            helper.make_node("Add", ["x", "d"], ["y"]),
        ],
        [("m", elem_type, ["n", 4]), ("x", FLOAT, ["n", 1, 4])],
        [("y", FLOAT, ["n", 1, 4])],
        axes=np.array([1]),
        one=np.float32(1),
        huge=huge,
    )


@pytest.mark.parametrize(
    ("nodes", "huge", "kept"),
    [
        ([helper.make_node("Sub", ["one", "b"], ["c"])], LOWEST, 1),
        ([helper.make_node("Sub", ["b", "one"], ["c"])], np.float32(1e4), 1),
        ([helper.make_node("Identity", ["b"], ["c"])], LOWEST, 0),
        ([helper.make_node("Identity", ["b"], ["c"])], np.float32(1e4), None),
        ([helper.make_node("Sub", ["one", "b"], ["c"])], np.float32(100), None),
    ],
)
def test_masks_are_of_zeros_and_ones_and_leave_something_in(nodes: Any, huge: Any, kept: int | None) -> None:
    model = mask(*nodes, huge=huge)
    assert uses_of(model.graph) == ({} if kept is None else {"m": Uses(kept=kept)})
    made = [each.arrays["m"] for each in revealing_inputs(inputs_of_model(model), extremes=False)]
    assert len(made) > 5
    assert (kept is None) == any(not np.isin(each, (0, 1)).all() for each in made)
    if kept is not None:
        assert all((each == kept).any(axis=-1).all() for each in made)
        assert any((each != kept).any() for each in made)


def test_divisors_are_never_zero() -> None:
    branch = helper.make_graph(
        [helper.make_node("Mod", ["a", "long"], ["c"])], "then", [], [helper.make_tensor_value_info("c", INT64, [8])]
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["a"], ["d"])], "else", [], [helper.make_tensor_value_info("d", INT64, [8])]
    )
    model = model_of(
        [
            helper.make_node("Cast", ["b"], ["long"], to=INT64),
            helper.make_node("If", ["is"], ["y"], then_branch=branch, else_branch=other),
            helper.make_node("Div", ["f", "g"], ["z"]),
        ],
        [("is", BOOL, []), ("a", INT64, [8]), ("b", INT32, [8]), ("f", FLOAT, [8]), ("g", FLOAT, [8])],
        [("y", INT64, [8]), ("z", FLOAT, [8])],
    )
    # A float may be divided by zero.
    assert uses_of(model.graph) == {"b": Uses(is_divisor=True)}
    for each in revealing_inputs(inputs_of_model(model), extremes=False):
        assert (each.arrays["b"] != 0).all()
        assert each.arrays["b"].dtype == np.int32


def test_lengths_are_within_the_steps() -> None:
    nodes = [
        helper.make_node("Cast", ["s"], ["long"], to=INT64),
        helper.make_node("ReverseSequence", ["x", "long"], ["y"], time_axis=0, batch_axis=1),
    ]
    model = model_of(nodes, [("x", FLOAT, ["t", "n", 4]), ("s", INT32, ["n"])], [("y", FLOAT, ["t", "n", 4])])
    for each in revealing_inputs(inputs_of_model(model), extremes=False):
        assert (each.arrays["s"] >= 1).all()
        assert (each.arrays["s"] <= len(each.arrays["x"])).all()


def test_scales_of_integers_are_never_zero() -> None:
    nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"])]
    inputs = [("x", FLOAT, [4]), ("s", FLOAT, [])]
    model = model_of(nodes, inputs, [("y", TensorProto.UINT8, [4])], z=np.uint8(3))
    assert uses_of(model.graph) == {"s": Uses(is_divisor=True)}
