"""Convolutions and pools, of fixed images and of any size, by Apple's interpreter and ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, helper

from support.apple_lowered import check
from support.lowered import FLOAT, INT64, model_of
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreai.lowering import lower

RNG = np.random.default_rng(7)
SIZES = {1: (9,), 2: (7, 6), 3: (4, 5, 6)}


def noise(*shape: int) -> Any:
    return (RNG.random(shape, np.float32) * 2 - 1).astype(np.float32)


def one(op: str, x: Any, folder: Path, *more: Any, is_free: bool, **attributes: Any) -> Any:
    """A node `op` of the input `x` and constants; with `is_free` of any batch and any size."""
    names = [f"c{index}" for index in range(len(more))]
    shape: list[Any] = ["n", x.shape[1], *(f"d{axis}" for axis in range(2, x.ndim))] if is_free else list(x.shape)
    node = helper.make_node(op, ["x", *names], ["y"], **attributes)
    model = model_of(
        [node], [("x", FLOAT, shape)], [("y", FLOAT, [None] * x.ndim)], **dict(zip(names, more, strict=True))
    )
    return check(model, {"x": x}, folder)["y"]


@pytest.mark.sampled(5)
@pytest.mark.parametrize("is_free", [False, True])
@pytest.mark.parametrize("spatial", [1, 2, 3])
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": 2, "auto_pad": "SAME_UPPER"},
        {"strides": 3, "auto_pad": "SAME_LOWER"},
        {"dilations": 2, "pads": (1, 1)},
        {"auto_pad": "VALID", "strides": 2},
        {"pads": (1, 2), "strides": 2, "group": 2},
    ],
)
def test_convolutions(attributes: dict[str, Any], spatial: int, is_free: bool, tmp_path: Path) -> None:
    named = {key: _spread(value, spatial) if key != "group" else value for key, value in attributes.items()}
    weight = noise(4, 4 // attributes.get("group", 1), *[3, 2, 2][:spatial])
    one("Conv", noise(2, 4, *SIZES[spatial]), tmp_path, weight, noise(4), is_free=is_free, **named)


def _spread(value: Any, spatial: int) -> Any:
    """The attribute for so many dimensions; a pair is the begin and the end of each."""
    if isinstance(value, tuple):
        return [each for side in value for each in [side] * spatial]
    return value if isinstance(value, str) else [value] * spatial


def test_kernels_may_be_computed(tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], dilations=[2, 3])
    inputs = [("x", FLOAT, [1, 1, 8, 9]), ("w", FLOAT, [2, 1, 3, 2]), ("b", FLOAT, [2])]
    model = model_of([node], inputs, [("y", FLOAT, [1, 2, 4, 6])])
    check(model, {"x": noise(1, 1, 8, 9), "w": noise(2, 1, 3, 2), "b": noise(2)}, tmp_path)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("is_free", [False, True])
@pytest.mark.parametrize("spatial", [1, 2, 3])
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": 2, "pads": (1, 1), "output_padding": 1},
        {"strides": 3, "pads": (0, 1), "output_padding": 2},
        {"strides": 2, "pads": (1, 0), "dilations": 2},
        {"strides": 2, "auto_pad": "SAME_UPPER"},
        {"strides": 2, "auto_pad": "SAME_LOWER", "group": 2},
        # Of a kernel that is smaller than the stride nothing is cut, and nothing added.
        {"strides": 4, "auto_pad": "SAME_UPPER"},
        {"strides": 5, "auto_pad": "SAME_LOWER", "output_padding": 1},
        {"strides": 3, "output_padding": 2, "pads": (0, 0), "group": 2},
    ],
)
def test_transposed_convolutions(attributes: dict[str, Any], spatial: int, is_free: bool, tmp_path: Path) -> None:
    named = {key: _spread(value, spatial) if key != "group" else value for key, value in attributes.items()}
    weight = noise(4, 2, *[3, 2, 2][:spatial])
    bias = noise(2 * attributes.get("group", 1))
    one("ConvTranspose", noise(2, 4, *SIZES[spatial]), tmp_path, weight, bias, is_free=is_free, **named)


def test_what_follows_a_cut_transposed_convolution_knows_its_sizes(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ConvTranspose", ["x", "w"], ["r"], strides=[2, 2], pads=[0, 0, 1, 1]),
        helper.make_node("DepthToSpace", ["r"], ["y"], blocksize=2),
        helper.make_node("Slice", ["r", "s", "e", "a", "t"], ["z"]),
    ]
    bounds = {name: np.array([each]) for name, each in zip("seat", (-1, -9, 1, -1), strict=True)}
    outputs = [("y", FLOAT, [1, 2, 8, 8]), ("z", FLOAT, [1, 8, 4, 4])]
    model = model_of(nodes, [("x", FLOAT, [1, 3, 2, 2])], outputs, w=noise(3, 8, 3, 3), **bounds)
    check(model, {"x": noise(1, 3, 2, 2)}, tmp_path)


@pytest.mark.parametrize("shape", [[10, 8], [11, 7]])
def test_transposed_convolutions_of_a_wanted_size(shape: list[int], tmp_path: Path) -> None:
    named = {"strides": [3, 2], "output_shape": shape}
    one("ConvTranspose", noise(1, 2, 3, 4), tmp_path, noise(2, 1, 3, 3), is_free=False, **named)
    with pytest.raises(UnsupportedError, match="--shape"):
        one("ConvTranspose", noise(1, 2, 3, 4), tmp_path, noise(2, 1, 3, 3), is_free=True, **named)


def _overhanging() -> tuple[Any, Any]:
    """Pools of windows that are larger than the image by less than a stride."""
    nodes = [
        helper.make_node("MaxPool", ["x"], ["a"], kernel_shape=[2, 3], strides=[2, 2]),
        helper.make_node("AveragePool", ["x"], ["b"], kernel_shape=[3, 3], strides=[3, 1], pads=[1, 0, 0, 1]),
        helper.make_node(
            "AveragePool", ["x"], ["c"], kernel_shape=[3, 3], strides=[3, 1], pads=[1, 0, 0, 1], count_include_pad=1
        ),
        helper.make_node("LpPool", ["x"], ["d"], kernel_shape=[2, 2], strides=[2, 1]),
    ]
    outputs = [(name, FLOAT, [1, 2, None, None]) for name in "abcd"]
    return model_of(nodes, [("x", FLOAT, [1, 2, 1, 6])], outputs), {"x": noise(1, 2, 1, 6) - 1}


def test_a_pool_may_reach_behind_a_small_image(tmp_path: Path) -> None:
    model, feeds = _overhanging()
    check(model, feeds, tmp_path)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("is_free", [False, True])
@pytest.mark.parametrize("op", ["AveragePool", "MaxPool"])
@pytest.mark.parametrize("spatial", [1, 2, 3])
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": 2, "pads": (1, 1)},
        {"strides": 3, "pads": (1, 0), "ceil_mode": 1},
        {"strides": 2, "ceil_mode": 1, "kernel_shape": 1},
        {"strides": 4, "pads": (1, 1), "ceil_mode": 1, "kernel_shape": 2},
        {"dilations": 2, "pads": (0, 1), "strides": 2, "ceil_mode": 1},
        {"auto_pad": "SAME_UPPER", "strides": 2},
        {"auto_pad": "SAME_LOWER", "strides": 3, "kernel_shape": 4},
    ],
)
def test_pools(op: str, attributes: dict[str, Any], spatial: int, is_free: bool, tmp_path: Path) -> None:
    kept = {key: value for key, value in attributes.items() if key == "ceil_mode"}
    sized = {"kernel_shape": 3, **{key: value for key, value in attributes.items() if key not in kept}}
    named = {**kept, **{key: _spread(value, spatial) for key, value in sized.items()}}
    x = noise(2, 3, *SIZES[spatial])
    one(op, x, tmp_path, is_free=is_free, **named)
    if op == "AveragePool":
        one(op, x, tmp_path, is_free=is_free, count_include_pad=1, **named)


def test_pools_tell_the_places(tmp_path: Path) -> None:
    node = helper.make_node("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2], strides=[1, 2], dilations=[2, 1])
    outputs = [("y", FLOAT, [2, 1, 3, 2]), ("i", INT64, [2, 1, 3, 2])]
    model = model_of([node], [("x", FLOAT, [2, 1, 5, 4])], outputs)
    check(model, {"x": noise(2, 1, 5, 4)}, tmp_path)
    node = helper.make_node("MaxPool", ["x"], ["y", "i"], kernel_shape=[3], strides=[2], pads=[1, 0], ceil_mode=1)
    model = model_of([node], [("x", FLOAT, [2, 1, 6])], [("y", FLOAT, [2, 1, 3]), ("i", INT64, [2, 1, 3])])
    check(model, {"x": noise(2, 1, 6)}, tmp_path)
    node = helper.make_node("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2], strides=[1, 2])
    model = model_of([node], [("x", FLOAT, [2, 1, "h", 4])], [("y", FLOAT, [None] * 4), ("i", INT64, [None] * 4)])
    with pytest.raises(UnsupportedError, match="--shape"):
        lower(model, tmp_path / "m.aimodel")


def test_averages_in_fp16_are_of_sums_beyond_it(tmp_path: Path) -> None:
    node = helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[7, 7])
    model = model_of([node], [("x", 10, [1, 2, 8, 8])], [("y", 10, [1, 2, 2, 2])])
    x = (noise(1, 2, 8, 8) * 100 + 20000).astype(np.float16)
    results = check(model, {"x": x}, tmp_path, rtol=3e-3)
    assert np.isfinite(results["y"]).all()


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[2, 7]),
        helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 3], dilations=[1, 3], pads=[0, 0, 0, 2]),
        helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 7], ceil_mode=1),
        helper.make_node("LpPool", ["x"], ["y"], kernel_shape=[2, 2**31]),
        helper.make_node("Conv", ["x", "w"], ["y"]),
    ],
)
def test_windows_that_have_no_place_are_refused(node: NodeProto, tmp_path: Path) -> None:
    """A result of negative sizes ends Apple's process."""
    weight = np.zeros((1, 1, 2, 7), np.float32)
    model = model_of([node], [("x", FLOAT, [1, 1, 4, 4])], [("y", FLOAT, [None] * 4)], w=weight)
    refused = r"a window of \d+ (does not fit into an image of 4|is larger than 'x')"
    with pytest.raises((UnsupportedError, InvalidArgumentError), match=refused):
        lower(model, tmp_path / "m.aimodel")


def test_four_spatial_dimensions_are_refused(tmp_path: Path) -> None:
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2] * 4)
    model = model_of([node], [("x", FLOAT, [1, 1, 2, 2, 2, 2])], [("y", FLOAT, [1] * 6)])
    with pytest.raises(UnsupportedError, match="over 4 dimensions"):
        lower(model, tmp_path / "m.aimodel")
