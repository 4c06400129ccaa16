"""Shapes, cuts, gathers and what reads images, of fixed and of free dimensions, computed by Apple's interpreter."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from support.lowered import BOOL, FLOAT, INT64, model_of
from support.lowered_coreai import check
from triune.core.errors import UnsupportedError
from triune.coreai import load
from triune.coreai.lowering import LowerOptions, lower
from triune.graph.conversion.shapes import InputShape

FREE1: Any = [None]
FREE2: Any = [None] * 2
FREE3: Any = [None] * 3
FREE4: Any = [None] * 4
RNG = np.random.default_rng(7)
KINDS: Mapping[Any, int] = {"f": FLOAT, "i": INT64, "b": BOOL}


def noise(*shape: int) -> Any:
    return (RNG.random(shape, np.float32) * 2 - 1).astype(np.float32)


def numbers(*values: int) -> Any:
    return np.array(values, np.int64)


def one(
    op: str,
    inputs: Mapping[str, Any],
    shape: Any,
    folder: Path,
    *,
    free: bool = False,
    kind: int = FLOAT,
    more: tuple[str, ...] = (),
    **attributes: Any,
) -> None:
    """A node of `inputs`, in order: arrays are inputs, of free dimensions if `free`; pairs (array,) are constants.

    Of a free input twice: with the array, and with it repeated along its first dimension, if `more` names it.
    """
    given: dict[str, Any] = {name: array for name, array in inputs.items() if not isinstance(array, tuple)}
    constants: dict[str, Any] = {name: array[0] for name, array in inputs.items() if isinstance(array, tuple)}
    node = helper.make_node(op, list(inputs), ["y"], **attributes)
    described = [
        (name, KINDS[array.dtype.kind], [f"{name}{place}" if free else size for place, size in enumerate(array.shape)])
        for name, array in given.items()
    ]
    model = model_of([node], described, [("y", kind, shape)], **constants)
    calls = [given]
    if more:
        calls.append({name: np.concatenate([array, array]) if name in more else array for name, array in given.items()})
    check(model, folder, *calls)


@pytest.mark.parametrize("target", [[0, -1], [-1, 2, 0], [3, 4]])
def test_reshapes(target: Any, tmp_path: Path) -> None:
    x = noise(3, 2, 2)
    free = 0 in target
    one("Reshape", {"x": x, "s": (numbers(*target),)}, [None] * len(target), tmp_path, free=free)


def test_reshapes_to_computed_shapes(tmp_path: Path) -> None:
    x = noise(3, 2, 2)
    node = helper.make_node("Reshape", ["x", "s"], ["y"])
    model = model_of([node], [("x", FLOAT, ["a", "b", 2]), ("s", INT64, [2])], [("y", FLOAT, FREE2)])
    check(model, tmp_path, {"x": x, "s": numbers(0, -1)}, {"x": x, "s": numbers(6, 2)})


@pytest.mark.parametrize("free", [False, True])
def test_squeezes_and_unsqueezes(free: bool, tmp_path: Path) -> None:
    one("Squeeze", {"x": noise(1, 3, 1), "a": (numbers(0, -1),)}, FREE1, tmp_path, free=free)
    one("Unsqueeze", {"x": noise(2, 3), "a": (numbers(0, -1),)}, [1, None, None, 1], tmp_path, free=free)


@pytest.mark.parametrize("free", [False, True])
def test_expands_and_tiles(free: bool, tmp_path: Path) -> None:
    one("Expand", {"x": noise(3, 1), "s": (numbers(2, 1, 4),)}, [2, None, 4], tmp_path, free=free)
    one("Expand", {"x": noise(3, 1), "s": numbers(2, 1, 4)}, FREE3, tmp_path)
    one("Tile", {"x": noise(3, 2), "r": (numbers(2, 3),)}, FREE2, tmp_path, free=free, more=("x",) * free)
    one("Tile", {"x": noise(3, 2), "r": numbers(2, 3)}, FREE2, tmp_path)


@pytest.mark.parametrize("free", [False, True])
def test_splits(free: bool, tmp_path: Path) -> None:
    size: Any = "n" if free else 5
    equal = helper.make_node("Split", ["x"], ["a", "b"], axis=0, num_outputs=2)
    given = helper.make_node("Split", ["x", "s"], ["c", "d"], axis=0)
    computed = helper.make_node("Split", ["x", "t"], ["e", "f"], axis=0)
    outputs: Any = [(each, FLOAT, [None, 2]) for each in "abcdef"]
    inputs = [("x", FLOAT, [size, 2]), ("t", INT64, [2])]
    model = model_of([equal, given, computed], inputs, outputs, s=numbers(2, 3))
    check(model, tmp_path, {"x": noise(5, 2), "t": numbers(4, 1)})


@pytest.mark.parametrize(
    ("starts", "ends", "steps"),
    [([-1], [-9], [-2]), ([1], [2**62], [3]), ([-3], [-1], [1]), ([2**62], [-(2**62)], [-1])],
)
@pytest.mark.parametrize("free", [False, True])
def test_slices(starts: Any, ends: Any, steps: Any, free: bool, tmp_path: Path) -> None:
    operands = {"s": (numbers(*starts),), "e": (numbers(*ends),), "a": (numbers(1),), "t": (numbers(*steps),)}
    one("Slice", {"x": noise(2, 6), **operands}, FREE2, tmp_path, free=free)


def test_backward_slices_of_a_size_that_is_known_later(tmp_path: Path) -> None:
    bounds = [(-1, -9), (0, -6), (3, -(2**62)), (5, -5), (2**62, 1), (-2, 0)]
    nodes = [helper.make_node("Slice", ["x", f"s{n}", f"e{n}", "", "t"], [f"y{n}"]) for n in range(len(bounds))]
    ends = {f"{key}{n}": numbers(pair[place]) for n, pair in enumerate(bounds) for place, key in enumerate("se")}
    outputs = [(f"y{n}", FLOAT, [None]) for n in range(len(bounds))]
    model = model_of(nodes, [("x", FLOAT, ["n"])], outputs, t=numbers(-1), **ends)
    options = LowerOptions(shapes={"x": InputShape(((5,), (7,)))})
    x = noise(5)
    with load(lower(model, tmp_path / "m.aimodel", options).path, executor="interpreter") as program:
        answers = program.predict({"x": x})
    for n, (start, end) in enumerate(bounds):
        np.testing.assert_array_equal(answers[f"y{n}"], x[start:end:-1])


def test_slices_with_computed_bounds(tmp_path: Path) -> None:
    node = helper.make_node("Slice", ["x", "s", "e", "", "t"], ["y"])
    inputs = [("x", FLOAT, [6]), ("s", INT64, [1]), ("e", INT64, [1]), ("t", INT64, [1])]
    model = model_of([node], inputs, [("y", FLOAT, ["n"])])
    bounds = [(1, 4, 1), (-3, 100, 2), (0, -1, 1), (5, -100, -2), (-1, 1, -1)]
    calls = [{"x": noise(6), "s": numbers(s), "e": numbers(e), "t": numbers(t)} for s, e, t in bounds]
    check(model, tmp_path, *calls)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
@pytest.mark.parametrize("free", [False, True])
def test_pads(mode: str, free: bool, tmp_path: Path) -> None:
    pads = numbers(1, 2, 1, 1)
    one("Pad", {"x": noise(3, 4), "p": (pads,)}, FREE2, tmp_path, free=free, mode=mode)
    one("Pad", {"x": noise(3, 4), "p": pads}, FREE2, tmp_path, mode=mode)
    whole = np.array([[2**30 + 1, 2, 3], [4, 5, 6], [7, 8, 9]])
    one("Pad", {"x": whole, "p": (pads,)}, FREE2, tmp_path, free=free, kind=INT64, mode=mode)


def test_pads_that_cut_or_repeat_more_than_there_is(tmp_path: Path) -> None:
    one("Pad", {"x": noise(3, 4), "p": (numbers(-1, 2, 1, -2),)}, FREE2, tmp_path, free=True)
    one("Pad", {"x": noise(3, 4), "p": numbers(-1, 2, 1, -2)}, FREE2, tmp_path, free=True)
    one("Pad", {"x": noise(1, 3), "p": (numbers(0, 4, 0, 8),)}, [1, 15], tmp_path, mode="wrap")


@pytest.mark.parametrize("free", [False, True])
def test_gathers(free: bool, tmp_path: Path) -> None:
    x = noise(3, 4, 2)
    one("Gather", {"x": x, "i": numbers(0, -1, 2)}, FREE3, tmp_path, free=free, axis=1, more=("x",) * free)
    one("Gather", {"x": x, "i": (np.array(-2),)}, FREE2, tmp_path, free=free, axis=1)
    one("Gather", {"x": x > 0, "i": np.array([[1, 0]])}, FREE4, tmp_path, free=free, kind=BOOL, axis=2)
    fewer = np.array([[[0, -1]], [[3, 1]]])
    one("GatherElements", {"x": x, "i": fewer}, FREE3, tmp_path, free=free, axis=1)
    tuples = np.array([[[0, 1], [-1, 0]], [[3, 1], [1, -1]], [[0, 0], [2, 1]]])
    one("GatherND", {"x": x, "i": (tuples,)}, FREE2, tmp_path, free=free, batch_dims=1)


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
@pytest.mark.parametrize("free", [False, True])
def test_scatters(reduction: str, free: bool, tmp_path: Path) -> None:
    indices = np.array([[0, -1], [1, 1]]) if reduction != "none" else np.array([[0, -1], [1, 2]])
    operands = {"x": noise(3, 4), "i": indices, "u": noise(2, 2)}
    one("ScatterElements", operands, FREE2, tmp_path, free=free, axis=1, reduction=reduction)
    rows = np.array([[0], [-1], [0]]) if reduction != "none" else np.array([[0], [-1], [1]])
    one(
        "ScatterND",
        {"x": noise(3, 4), "i": (rows,), "u": noise(3, 4)},
        FREE2,
        tmp_path,
        free=free,
        reduction=reduction,
    )


@pytest.mark.parametrize("free", [False, True])
def test_places(free: bool, tmp_path: Path) -> None:
    x: Any = np.round(noise(3, 5) * 2)
    node = helper.make_node("TopK", ["x", "k"], ["y", "i"], axis=1, largest=0)
    shape: Any = ["a", "b"] if free else [3, 5]
    outputs = [("y", FLOAT, FREE2), ("i", INT64, FREE2)]
    check(model_of([node], [("x", FLOAT, shape)], outputs, k=numbers(3)), tmp_path, {"x": x})
    model = model_of([node], [("x", FLOAT, shape), ("k", INT64, [1])], outputs)
    check(model, tmp_path, {"x": x, "k": numbers(2)}, {"x": x, "k": numbers(5)})
    one("NonZero", {"x": x}, [2, None], tmp_path, free=free, kind=INT64)
    hot = {"i": numbers(0, -1, 7, 2), "d": (np.array(4),), "v": (np.array([0.5, 2], np.float32),)}
    one("OneHot", hot, [None, 4], tmp_path, free=free)
    one("OneHot", {**hot, "d": np.array(4)}, FREE2, tmp_path)
    lengths = numbers(1, 3, 2)
    one("ReverseSequence", {"x": noise(4, 3, 2), "l": lengths}, FREE3, tmp_path, free=free)


@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("k", [-1, 0, 2])
def test_triangles(upper: int, k: int, tmp_path: Path) -> None:
    one("Trilu", {"x": noise(2, 3, 4), "k": (np.array(k),)}, FREE3, tmp_path, free=True, upper=upper)
    one("Trilu", {"x": noise(3, 4) > 0, "k": np.array(k)}, FREE2, tmp_path, kind=BOOL, upper=upper)


def test_ranges_and_fillings_are_computed(tmp_path: Path) -> None:
    value = helper.make_tensor("v", TensorProto.INT64, [1], [7])
    nodes = [
        helper.make_node("Range", ["a", "b", "c"], ["r"]),
        helper.make_node("Shape", ["r"], ["s"]),
        helper.make_node("ConstantOfShape", ["s"], ["f"], value=value),
    ]
    inputs: Any = [(each, INT64, []) for each in "abc"]
    model = model_of(nodes, inputs, [("r", INT64, ["n"]), ("f", INT64, ["n"])])
    calls = [dict(zip("abc", map(np.array, each), strict=True)) for each in ((1, 9, 3), (5, -2, -2))]
    check(model, tmp_path, *calls)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_becomes_space(mode: str, tmp_path: Path) -> None:
    node = helper.make_node("DepthToSpace", ["x"], ["y"], blocksize=2, mode=mode)
    model = model_of([node], [("x", FLOAT, ["n", 8, "h", "w"])], [("y", FLOAT, FREE4)])
    check(model, tmp_path, {"x": noise(2, 8, 2, 3)})


@pytest.mark.parametrize(("mode", "padding"), [("linear", "zeros"), ("nearest", "reflection"), ("cubic", "border")])
@pytest.mark.parametrize("free", [False, True])
def test_grids_are_sampled(mode: str, padding: str, free: bool, tmp_path: Path) -> None:
    operands = {"x": noise(1, 2, 4, 5), "g": noise(1, 3, 3, 2) * 1.5}
    one("GridSample", operands, FREE4, tmp_path, free=free, mode=mode, padding_mode=padding)


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("is_aligned", [0, 1])
def test_ties_of_grids_are_rounded_before_they_are_reflected(padding: str, is_aligned: int, tmp_path: Path) -> None:
    size = 6
    pixels = np.arange(-2 * size, 3 * size, dtype=np.float32) + 0.5
    grid = pixels * 2 / (size - 1) - 1 if is_aligned else (pixels + 0.5) * 2 / size - 1
    # Only those whose tie survives the rounding of float32.
    back = (grid + 1) * (size - 1) / 2 if is_aligned else (grid + 1) * size / 2 - np.float32(0.5)
    kept = grid[back == pixels]
    assert len(kept) > 5
    operands = {"x": noise(1, 2, size, size), "g": np.stack(np.meshgrid(kept, kept), -1)[None]}
    one("GridSample", operands, FREE4, tmp_path, mode="nearest", padding_mode=padding, align_corners=is_aligned)


@pytest.mark.parametrize("free", [False, True])
def test_boxes_are_suppressed(free: bool, tmp_path: Path) -> None:
    corners = RNG.random((2, 9, 2), np.float32)
    boxes = np.concatenate([corners, corners + 0.4], 2)
    node = helper.make_node("NonMaxSuppression", ["b", "s", "m", "i", "t"], ["y"])
    shapes: Any = [["n", "k", 4], ["n", "c", "k"]] if free else [[2, 9, 4], [2, 3, 9]]
    inputs: Any = [("b", FLOAT, shapes[0]), ("s", FLOAT, shapes[1])]
    operands = {"m": numbers(3), "i": np.array([0.3], np.float32), "t": np.array([0.2], np.float32)}
    outputs: Any = [("y", INT64, [None, 3])]
    model = model_of([node], inputs, outputs, **operands)
    check(model, tmp_path, {"b": boxes, "s": RNG.random((2, 3, 9), np.float32)})


def test_empty_results_are_refused(tmp_path: Path) -> None:
    node = helper.make_node("Slice", ["x", "s", "e"], ["y"])
    model = model_of([node], [("x", FLOAT, [3])], [("y", FLOAT, [0])], s=numbers(2), e=numbers(1))
    with pytest.raises(UnsupportedError, match="no empty tensors"):
        lower(model, tmp_path / "m.aimodel")


@pytest.mark.parametrize("between", ["Identity", "Exp"])
def test_values_of_free_shapes_are_reshaped_and_broadcast(between: str, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "r"], ["u"]),
        helper.make_node("Reshape", ["z", "s"], ["v"]),
        helper.make_node(between, ["u"], ["a"]),
        helper.make_node("Sub", ["a", "v"], ["y"]),
        helper.make_node("Unsqueeze", ["x", "one"], ["b"]),
        helper.make_node("Sub", ["u", "b"], ["w"]),
    ]
    outputs = [("y", FLOAT, FREE2), ("w", FLOAT, FREE2)]
    constants = {"r": numbers(1, -1), "s": numbers(-1, 1), "one": numbers(1)}
    model = model_of(nodes, [("x", FLOAT, ["n"]), ("z", FLOAT, ["m"])], outputs, **constants)
    check(model, tmp_path, {"x": noise(4), "z": noise(3)})


def test_a_declared_rank_that_nothing_computes_is_passed_over(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["sizes"]),
        helper.make_node("Concat", ["sizes", "one"], ["more"], axis=0),
        helper.make_node("Reshape", ["x", "more"], ["y"]),
    ]
    model = model_of(nodes, [("x", FLOAT, ["n", 4])], [("y", FLOAT, ["n"])], one=np.array([1]))
    check(model, tmp_path, {"x": noise(3, 4)}, {"x": noise(5, 4)})


@pytest.mark.parametrize(("one", "other"), [(["b", 3], [2, "k"]), (["b", "m"], ["c", 3])])
def test_values_are_joined_of_which_one_knows_the_size(one: Any, other: Any, tmp_path: Path) -> None:
    node = helper.make_node("Concat", ["x", "y"], ["z"], axis=0)
    model = model_of([node], [("x", FLOAT, one), ("y", FLOAT, other)], [("z", FLOAT, ["n", 3])])
    check(model, tmp_path, {"x": np.ones((4, 3), np.float32), "y": np.zeros((2, 3), np.float32)})


@pytest.mark.parametrize(
    ("constant", "reps"),
    [
        (np.arange(4)[None], ("n", "one")),
        (np.arange(4)[:, None], ("one", "n")),
        (np.arange(8).reshape(2, 4), ("n", "n")),
    ],
)
def test_tiles_constants_by_a_listed_size_that_may_be_one(constant: Any, reps: tuple[str, str], tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["n"], start=0, end=1),
        helper.make_node("Concat", list(reps), ["r"], axis=0),
        helper.make_node("Tile", ["c", "r"], ["t"]),
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=1),
        helper.make_node("Add", ["t", "s"], ["y"]),
    ]
    given: Any = {"c": constant.astype(np.float32), "one": numbers(1)}
    model = model_of(nodes, [("x", FLOAT, ["b", 3])], [("y", FLOAT, FREE2)], **given)
    options = LowerOptions(shapes={"x": InputShape(((1, 3), (2, 3)))})
    with load(lower(model, tmp_path / "m.aimodel", options).path, executor="interpreter") as program:
        for size in (1, 2):
            x = noise(size, 3)
            expected = np.tile(given["c"], [size if each == "n" else 1 for each in reps]) + x.sum()
            np.testing.assert_allclose(program.predict({"x": x})["y"], expected, rtol=1e-5)
