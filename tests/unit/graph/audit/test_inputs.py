import numpy as np
import pytest
from onnx import TensorProto, helper, shape_inference

from support.lowered import model_of
from triune.core.errors import UnsupportedError
from triune.graph.audit import Free, Input, inputs_of_model, revealing_inputs
from triune.graph.conversion.shapes import parse_shapes

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def test_every_set_has_values_of_the_declared_types_and_shapes():
    interface = [
        Input("x", np.dtype(np.float16), ((2, Free("n", 2, 4)),)),
        Input("y", np.dtype(np.int8), ((Free("n", 2, 4),),)),
        Input("mask", np.dtype(np.bool_), ((1, 3), (1, 5))),
    ]

    sets = revealing_inputs(interface)

    for each in sets:
        x, y, mask = (each.arrays[name] for name in ("x", "y", "mask"))
        assert (x.dtype, y.dtype, mask.dtype) == (np.float16, np.int8, np.bool_)
        assert x.shape == (2, y.shape[0])
        assert 2 <= y.shape[0] <= 4
        assert mask.shape in ((1, 3), (1, 5))
        assert each.is_extreme or np.isfinite(x).all()
    assert {each.arrays["mask"].shape for each in sets} == {(1, 3), (1, 5)}
    assert len({each.arrays["y"].shape for each in sets}) > 1


def test_the_sets_hold_what_noise_lacks():
    sets = {each.name: each.arrays["x"] for each in revealing_inputs([Input("x", np.dtype(np.float32), ((8, 8),))])}

    assert np.isinf(sets["infinities"]).any()
    assert np.isnan(sets["infinities"]).any()
    assert set(sets["masks"].flat) == {0, 1}
    assert (sets["whole numbers"] % 1 == 0).all()
    assert (np.abs(sets["ties"]) % 1 == 0.5).any()
    assert np.signbit(sets["signed zeros"][sets["signed zeros"] == 0]).any()
    assert np.abs(sets["huge"]).max() > 1e38


def test_equal_seeds_give_equal_sets():
    interface = [Input("x", np.dtype(np.float32), ((4,),))]

    first, again, other = (revealing_inputs(interface, seed=seed)[0].arrays["x"] for seed in (3, 3, 4))

    assert (first == again).all()
    assert (first != other).any()


def test_whole_numbers_that_are_indices_stay_within_what_they_index():
    nodes = [
        helper.make_node("Unsqueeze", ["i", "axes"], ["j"]),
        helper.make_node("Gather", ["table", "j"], ["y"], axis=0),
        helper.make_node("Add", ["k", "k"], ["z"]),
    ]
    model = model_of(
        nodes,
        [("i", INT64, ["n"]), ("k", INT64, [6])],
        [("y", FLOAT, None), ("z", INT64, None)],
        axes=np.array([1]),
        table=np.zeros((7, 2), np.float32),
    )

    interface = inputs_of_model(shape_inference.infer_shapes(model), parse_shapes(["i=2..9"]))

    assert [each.num_indexed for each in interface] == [7, None]
    assert interface[0].shapes == ((Free("n", 2, 9),),)
    for each in revealing_inputs(interface):
        assert ((each.arrays["i"] >= 0) & (each.arrays["i"] < 7)).all()


def test_text_cannot_be_made_up():
    model = model_of([helper.make_node("Identity", ["x"], ["y"])], [("x", TensorProto.STRING, [1])], [])

    with pytest.raises(UnsupportedError, match="input 'x' is not a tensor of numbers"):
        inputs_of_model(model)


def test_multiples_of_the_constants_are_tried():
    nodes = [helper.make_node("Div", ["x", "k"], ["y"])]
    model = model_of(nodes, [("x", FLOAT, [200])], [("y", FLOAT, [200])], k=np.float32(41))

    sets = {each.name: each.arrays["x"] for each in revealing_inputs(inputs_of_model(model))}

    assert (sets["multiples"] % 41 == 0).all()
    assert len(set(sets["multiples"])) > 20


def test_whole_numbers_reach_the_ends_of_their_types_of_limits_and_of_tables():
    nodes = [
        helper.make_node("Clip", ["x", "low", "high"], ["a"]),
        helper.make_node("Unsqueeze", ["i", "axes"], ["j"]),
        helper.make_node("Gather", ["table", "j"], ["b"]),
        helper.make_node("Cast", ["u"], ["c"], to=FLOAT),
    ]
    inputs = [("x", INT64, [8]), ("i", INT64, [8]), ("u", TensorProto.UINT8, [8])]
    constants = {"low": np.array(-3), "high": np.array(100_000), "axes": np.array([0])}
    table = np.array([1, 70_000, 5, -90_000, 2])
    model = model_of(
        nodes, inputs, [("a", INT64, [8]), ("b", INT64, [1, 8]), ("c", FLOAT, [8])], **constants, table=table
    )

    (ends,) = (each.arrays for each in revealing_inputs(inputs_of_model(model)) if each.name == "ends")

    assert set(ends["x"]) == {-3, 100_000}
    assert set(ends["i"]) == {0, 1, 3, 4}
    assert set(ends["u"]) == {0, 255}


def test_limits_beyond_int32_are_none_of_what_a_program_takes():
    limits = {"low": np.array(np.iinfo(np.int64).min), "high": np.array(np.iinfo(np.int64).max)}
    nodes = [helper.make_node("Clip", ["x", "low", "high"], ["y"])]
    model = model_of(nodes, [("x", INT64, [8])], [("y", INT64, [8])], **limits)
    for each in revealing_inputs(inputs_of_model(model)):
        assert np.abs(each.arrays["x"]).max() <= 2**31


@pytest.mark.parametrize(
    ("op_type", "factor", "parted"), [("Mul", 0.29, {100, 200, 400}), ("Div", 0.7, {21, 42}), ("Mul", 0.5, set())]
)
def test_whole_numbers_that_fp32_parts_from_fp64(op_type: str, factor: float, parted: set[int]):
    """0.29 times 100 is 28.999... in fp64, and 29 in fp32."""
    nodes = [
        helper.make_node("Cast", ["n"], ["d"], to=TensorProto.DOUBLE),
        helper.make_node(op_type, ["d", "s"], ["m"]),
        helper.make_node("Cast", ["m"], ["y"], to=INT64),
    ]
    model = model_of(nodes, [("n", INT64, [64])], [("y", INT64, [64])], s=np.float64(factor))
    (ends,) = (each.arrays["n"] for each in revealing_inputs(inputs_of_model(model)) if each.name == "ends")
    assert parted <= set(ends.tolist())
    assert bool(parted) == bool(ends.max() > 4)


def test_floats_that_are_cast_to_int64_are_beyond_int32_but_for_indices():
    nodes = [
        helper.make_node("Unsqueeze", ["x", "axes"], ["a"]),
        helper.make_node("Cast", ["a"], ["b"], to=INT64),
        helper.make_node("Cast", ["i"], ["j"], to=INT64),
        helper.make_node("Gather", ["table", "j"], ["c"]),
        helper.make_node("Cast", ["s"], ["d"], to=TensorProto.INT32),
    ]
    inputs = [("x", FLOAT, [8]), ("i", FLOAT, [8]), ("s", FLOAT, [8])]
    constants = {"axes": np.array([0]), "table": np.zeros(5, np.float32)}
    model = model_of(
        nodes, inputs, [("b", INT64, None), ("c", FLOAT, None), ("d", TensorProto.INT32, None)], **constants
    )
    (ends,) = (each for each in revealing_inputs(inputs_of_model(model)) if each.name == "ends")
    assert np.abs(ends.arrays["x"]).max() > 2**31
    assert all(np.abs(ends.arrays[name]).max() < 10 for name in "is")
