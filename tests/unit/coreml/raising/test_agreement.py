"""Two witnesses: what ONNX Runtime computes of a raised operation is what the numpy interpreter computes of it.

They share nothing but the reader. Each operation is tried with the sizes known, and where it can be with none known.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from support.compiled_models import assert_same
from support.mil_programs import make_specification, mb
from triune.coreml.interpreter import Interpreter
from triune.coreml.mil import Array
from triune.coreml.mil_text import read_text, write_text
from triune.coreml.onnx_executor import OnnxExecutor
from triune.coreml.package import read_specification
from triune.coreml.read_program import read_program
from triune.coreml.weights import MemoryWeights

Build = Callable[[Any], Any]
_RANDOM = np.random.default_rng(3)


def _numbers(*shape: int, low: float = -2.0, high: float = 2.0) -> Array:
    values: Array = _RANDOM.uniform(low, high, shape)
    return values.astype(np.float32)


X = _numbers(2, 3, 4, 6)
POSITIVE = np.abs(X) + np.float32(0.1)
INTS = _RANDOM.integers(-7, 8, (2, 3, 4)).astype(np.int32)
DIVISORS = np.where(INTS == 0, 3, INTS)[:, ::-1].copy()
MULTIPLES = np.arange(-60, 60, dtype=np.float32) * np.float32(0.3)
"""Some of their quotients by 0.3 are rounded up to whole numbers."""

UNARY = (
    "abs atan ceil cos cosh erf exp exp2 floor gelu identity relu relu6 round sigmoid sign silu sin sinh softmax "
    "softplus softsign square tan tanh l2_norm instance_norm shape reverse squeeze"
)
BINARY = "add equal floor_div greater greater_equal less less_equal maximum minimum mod mul not_equal real_div sub"
COMPARISONS = ["equal", "greater", "greater_equal", "less", "less_equal", "not_equal"]
REDUCTIONS = "l1_norm l2_norm log_sum_exp max mean min prod sum sum_square argmax argmin"


def _unary(name: str) -> Build:
    return lambda given: getattr(mb, name)(x=given.x)


def _binary(name: str) -> Build:
    """Core ML has no outputs of truth values: they are made integers."""

    def build(given: Any) -> Any:
        result = getattr(mb, name)(x=given.x, y=given.y)
        return mb.cast(x=result, dtype="int32") if name in COMPARISONS else result

    return build


def _reduction(name: str) -> Build:
    axes = {"axis": 2} if name.startswith("arg") else {"axes": [1, -1]}
    return lambda given: getattr(mb, f"reduce_{name}")(x=given.x, keep_dims=name in ("max", "argmin"), **axes)


def _resized(mode: str) -> Build:
    return lambda given: [
        mb.resize_bilinear(x=given.x, target_size_height=7, target_size_width=1, sampling_mode=mode),
        mb.resize_bilinear(x=given.x, target_size_height=3, target_size_width=11, sampling_mode=mode),
    ]


def _scattered(mode: str, target_axis: int) -> Build:
    updates = _numbers(2, 2, 4, 6) if target_axis == 1 else _numbers(2, 3, 2, 6)
    return lambda given: mb.scatter(
        data=given.x, indices=np.array([1, 0], np.int32), updates=updates, axis=target_axis, mode=mode
    )


def _scattered_outside(highest: int, **more: bool) -> Build:
    """Updates at -2, `highest` and 0 of an axis of 3."""
    places = np.array([-2, highest, 0], np.int32)
    along = np.broadcast_to(places[:, None, None], (2, 3, 4, 6)).astype(np.int32)
    points = np.array([[0, -1], [1, highest], [-2, 0]], np.int32)
    return lambda given: [
        mb.scatter(data=given.x, indices=places, updates=-X, axis=1, mode="update", **more),
        mb.scatter_along_axis(data=given.x, indices=along, updates=-X, axis=1, mode="add", **more),
        mb.scatter_nd(data=given.x, indices=points, updates=-X[0], mode="mul", **more),
        mb.gather(x=given.x, indices=np.array([-1, 0], np.int32), axis=1, **more),
    ]


def _while(given: Any) -> Any:
    return mb.while_loop(
        _cond=lambda x, count: mb.less(x=mb.reduce_max(x=count), y=np.float32(5)),
        _body=lambda x, count: (mb.mul(x=x, y=np.float32(1.5)), mb.add(x=count, y=np.float32(1))),
        loop_vars=(given.x, given.y),
    )


def _cond(given: Any) -> Any:
    return mb.cond(
        pred=mb.greater(x=mb.reduce_sum(x=given.x), y=np.float32(0)),
        _true_fn=lambda: mb.add(x=given.x, y=np.float32(1)),
        _false_fn=lambda: mb.identity(x=given.x),
    )


def _list(given: Any) -> Any:
    values = mb.make_list(init_length=1, elem_shape=[3, 4, 6])
    for index in (1, 0, 4):
        row = mb.slice_by_index(
            x=given.x, begin=[index % 2, 0, 0, 0], end=[0, 3, 4, 6], squeeze_mask=[True] + [False] * 3
        )
        values = mb.list_write(ls=values, index=np.int32(index), value=row)
    return (
        mb.list_gather(ls=values, indices=[4, 0, 1]),
        mb.list_read(ls=values, index=np.int32(1)),
        mb.list_length(ls=values),
    )


def _conv(**attributes: Any) -> Build:
    weight = _numbers(4, 3, 3, 2)
    return lambda given: mb.conv(x=given.x, weight=weight, bias=np.arange(4, dtype=np.float32), **attributes)


def _pool(kind: str, **attributes: Any) -> Build:
    return lambda given: getattr(mb, f"{kind}_pool")(x=given.x, kernel_sizes=[3, 2], **attributes)


IMAGE: Mapping[str, Array] = {"x": X}
CASES: dict[str, tuple[Build, Mapping[str, Array], str, bool]] = {
    **{name: (_unary(name), IMAGE, "iOS15", name not in ("squeeze", "instance_norm")) for name in UNARY.split()},
    **{name: (_unary(name), {"x": POSITIVE}, "iOS15", True) for name in ("log", "sqrt", "rsqrt", "inverse")},
    **{name: (_unary(name), {"x": X / 3}, "iOS15", True) for name in ("acos", "asin", "atanh")},
    **{name: (_binary(name), {"x": X, "y": X[:, ::-1, :1].copy()}, "iOS15", False) for name in BINARY.split()},
    **{f"{name} of integers": (_binary(name), {"x": INTS, "y": DIVISORS}, "iOS15", False) for name in BINARY.split()},
    **{f"reduce {name}": (_reduction(name), IMAGE, "iOS15", True) for name in REDUCTIONS.split()},
    **{
        f"{name} of {dtype} multiples": (
            _binary(name),
            {"x": MULTIPLES.astype(dtype), "y": np.array([0.3], dtype)},
            "iOS16",
            False,
        )
        for name in ("floor_div", "mod")
        for dtype in ("float32", "float16")
    },
    **{
        f"resize {mode}": (_resized(mode), IMAGE, "iOS15", True)
        for mode in ("DEFAULT", "ALIGN_CORNERS", "STRICT_ALIGN_CORNERS", "UNALIGN_CORNERS", "OFFSET_CORNERS")
    },
    **{
        f"scatter {mode}": (_scattered(mode, axis), IMAGE, "iOS17", False)
        for mode in ("update", "add", "sub", "mul", "div", "max", "min")
        for axis in (1, 2)
    },
    "scatter from the end": (_scattered_outside(2), IMAGE, "iOS15", False),
    "scatter outside": (_scattered_outside(3), IMAGE, "iOS17", False),
    "cond": (_cond, IMAGE, "iOS15", True),
    "while_loop": (_while, {"x": X, "y": np.zeros(1, np.float32)}, "iOS15", False),
    "list": (_list, IMAGE, "iOS15", False),
    "conv valid": (_conv(pad_type="valid", dilations=[1, 2]), IMAGE, "iOS15", False),
    "conv same": (_conv(pad_type="same", strides=[2, 2]), IMAGE, "iOS15", False),
    "conv same_lower": (_conv(pad_type="same_lower"), IMAGE, "iOS16", False),
    "conv custom": (_conv(pad_type="custom", pad=[1, 0, 2, 1]), IMAGE, "iOS15", False),
    "conv_transpose": (
        lambda given: mb.conv_transpose(
            x=given.x, weight=np.ones((3, 2, 3, 3), np.float32), strides=[2, 2], pad_type="same"
        ),
        IMAGE,
        "iOS15",
        False,
    ),
    "conv_transpose with padding": (
        lambda given: mb.conv_transpose(
            x=given.x,
            weight=X[:1, :, :2, :3].transpose(1, 0, 2, 3).copy(),
            strides=[2, 1],
            pad_type="custom",
            pad=[1, 0, 1, 1],
        ),
        IMAGE,
        "iOS15",
        False,
    ),
    "max_pool": (
        _pool("max", pad_type="custom", pad=[1, 1, 0, 0], strides=[2, 2], ceil_mode=True),
        IMAGE,
        "iOS15",
        False,
    ),
    "avg_pool": (_pool("avg", pad_type="same", exclude_padding_from_average=True), IMAGE, "iOS15", False),
    "avg_pool with padding": (_pool("avg", pad_type="custom", pad=[1, 1, 1, 1]), IMAGE, "iOS15", False),
    "l2_pool": (_pool("l2", pad_type="valid"), IMAGE, "iOS15", True),
    "layer_norm": (
        lambda given: mb.layer_norm(
            x=given.x, axes=[-1], gamma=np.arange(6, dtype=np.float32), beta=np.ones(6, np.float32)
        ),
        IMAGE,
        "iOS15",
        False,
    ),
    "layer_norm of channels": (
        lambda given: mb.layer_norm(
            x=given.x, axes=[1], gamma=np.arange(3, dtype=np.float32), beta=np.ones(3, np.float32)
        ),
        IMAGE,
        "iOS15",
        False,
    ),
    "local_response_norm": (lambda given: mb.local_response_norm(x=given.x, size=2, alpha=0.3), IMAGE, "iOS15", True),
    "local_response_norm of volumes": (
        lambda given: mb.local_response_norm(x=given.x, size=3, alpha=0.3),
        {"x": _numbers(1, 4, 2, 3, 2)},
        "iOS15",
        True,
    ),
    "batch_norm": (
        lambda given: mb.batch_norm(x=given.x, mean=np.ones(3, np.float32), variance=np.arange(1, 4, dtype=np.float32)),
        IMAGE,
        "iOS15",
        False,
    ),
    "linear": (lambda given: mb.linear(x=given.x, weight=X[0, 0]), {"x": X[0]}, "iOS15", False),
    "matmul": (
        lambda given: mb.matmul(x=given.x, y=given.y, transpose_y=True),
        {"x": X, "y": X[:1, :, ::-1].copy()},
        "iOS15",
        False,
    ),
    "einsum": (
        lambda given: mb.einsum(values=(given.x, given.y), equation="nchw,nwhu->nchu"),
        {"x": X, "y": _numbers(1, 6, 4, 5)},
        "iOS15",
        False,
    ),
    "gather": (
        lambda given: mb.gather(x=given.x, indices=[[1, 2], [0, 0]], axis=2, batch_dims=1),
        IMAGE,
        "iOS16",
        True,
    ),
    "gather_nd": (
        lambda given: mb.gather_nd(x=given.x, indices=[[[0, 1]], [[2, 3]]], batch_dims=1),
        IMAGE,
        "iOS16",
        True,
    ),
    "gather_along_axis": (
        lambda given: mb.gather_along_axis(x=given.x, indices=np.ones((2, 3, 2, 6), np.int32), axis=2),
        IMAGE,
        "iOS15",
        False,
    ),
    "slice_by_index": (
        lambda given: mb.slice_by_index(
            x=given.x,
            begin=[-1, 0, 3, 5],
            end=[0, 2, 0, 0],
            stride=[1, 2, -1, -2],
            end_mask=[False, False, True, True],
            squeeze_mask=[True, False, False, False],
        ),
        IMAGE,
        "iOS15",
        True,
    ),
    "slice_by_size": (
        lambda given: mb.slice_by_size(x=given.x, begin=[0, 1, -3, 0], size=[-1, 1, 2, 3]),
        IMAGE,
        "iOS15",
        True,
    ),
    "slice_update": (
        lambda given: [
            mb.slice_update(
                x=given.x,
                update=np.ones((2, 3, 2, 6), np.float32),
                begin=[0, 0, 1, 0],
                end=[0, 0, 3, 0],
                begin_mask=[True, True, False, True],
                end_mask=[True, True, False, True],
            ),
            mb.slice_update(
                x=given.x,
                update=np.ones((2, 2, 2), np.float32),
                begin=[0, 0, 1, 0],
                end=[2, 2, 3, 4],
                stride=[1, 1, 1, 2],
                squeeze_mask=[False, False, True, False],
            ),
        ],
        IMAGE,
        "iOS18",
        False,
    ),
    "concat interleaved": (
        lambda given: mb.concat(values=(given.x, given.x), axis=1, interleave=True),
        IMAGE,
        "iOS15",
        True,
    ),
    "split": (lambda given: mb.split(x=given.x, split_sizes=[1, 3], axis=2), IMAGE, "iOS15", False),
    "stack": (lambda given: mb.stack(values=(given.x, given.x), axis=-1), IMAGE, "iOS15", True),
    "topk": (lambda given: mb.topk(x=given.x, k=2, axis=1, ascending=True), IMAGE, "iOS15", True),
    "argsort": (lambda given: mb.argsort(x=given.x, axis=2), IMAGE, "iOS15", True),
    "cumsum": (lambda given: mb.cumsum(x=given.x, axis=2, exclusive=True, reverse=True), IMAGE, "iOS15", True),
    "band_part": (
        lambda given: [mb.band_part(x=given.x, lower=1, upper=0), mb.band_part(x=given.x, upper=2)],
        IMAGE,
        "iOS15",
        True,
    ),
    "non_zero": (lambda given: mb.non_zero(x=given.x), {"x": INTS}, "iOS15", True),
    "one_hot": (
        lambda given: mb.one_hot(indices=given.x, one_hot_vector_size=4, axis=1, on_value=2.0, off_value=-1.0),
        {"x": np.abs(INTS) % 4},
        "iOS15",
        True,
    ),
    "tile": (lambda given: mb.tile(x=given.x, reps=[1, 2, 1, 3]), IMAGE, "iOS15", True),
    "pad reflect": (lambda given: mb.pad(x=given.x, pad=[1, 2, 2, 0], mode="reflect"), IMAGE, "iOS15", True),
    "pad constant": (lambda given: mb.pad(x=given.x, pad=[1, 2], constant_val=7.0), IMAGE, "iOS15", True),
    "flatten2d": (lambda given: mb.flatten2d(x=given.x, axis=2), IMAGE, "iOS15", False),
    "fill_like": (lambda given: mb.fill_like(ref_tensor=given.x, value=3.5), IMAGE, "iOS16", True),
    "reshape": (lambda given: mb.reshape(x=given.x, shape=[2, -1, 6]), IMAGE, "iOS15", True),
    "reshape with zeros": (lambda given: mb.reshape(x=given.x, shape=[1, -1, 0, 0]), IMAGE, "iOS17", False),
    "transpose": (lambda given: mb.transpose(x=given.x, perm=[0, -1, 1, 2]), IMAGE, "iOS15", True),
    "depth_to_space": (
        lambda given: mb.depth_to_space(x=given.x, block_size=2),
        {"x": X.reshape(1, 12, 3, 4)},
        "iOS15",
        False,
    ),
    "pixel_shuffle": (
        lambda given: mb.pixel_shuffle(x=given.x, upscale_factor=2),
        {"x": X.reshape(1, 12, 3, 4)},
        "iOS15",
        False,
    ),
    "space_to_depth": (lambda given: mb.space_to_depth(x=given.x, block_size=2), IMAGE, "iOS15", False),
    "pixel_unshuffle": (
        lambda given: mb.pixel_unshuffle(x=given.x, downscale_factor=np.uint32(2)),
        IMAGE,
        "iOS16",
        False,
    ),
    "space_to_batch": (
        lambda given: mb.space_to_batch(x=given.x, block_shape=[2, 3], paddings=[[1, 1], [0, 3]]),
        IMAGE,
        "iOS15",
        False,
    ),
    "batch_to_space": (
        lambda given: mb.batch_to_space(x=given.x, block_shape=[2, 3], crops=[[1, 0], [0, 2]]),
        {"x": X.reshape(12, 2, 2, 3)},
        "iOS15",
        False,
    ),
    "reverse_sequence": (
        lambda given: mb.reverse_sequence(x=given.x, lengths=[2, 4], seq_axis=2, batch_axis=0),
        IMAGE,
        "iOS15",
        False,
    ),
    "sliding_windows": (lambda given: mb.sliding_windows(x=given.x, axis=2, size=2, stride=1), IMAGE, "iOS15", False),
    "upsample_bilinear": (
        lambda given: mb.upsample_bilinear(
            x=given.x, scale_factor_height=2.0, scale_factor_width=1.5, align_corners=False
        ),
        IMAGE,
        "iOS15",
        True,
    ),
    "upsample_nearest_neighbor": (
        lambda given: mb.upsample_nearest_neighbor(x=given.x, scale_factor_height=2),
        IMAGE,
        "iOS15",
        True,
    ),
    "crop": (lambda given: mb.crop(x=given.x, crop_height=[1, 0], crop_width=[0, 2]), IMAGE, "iOS15", True),
    "crop_resize": (
        lambda given: mb.crop_resize(
            x=given.x,
            boxes=np.array([[0, 1, 3, 4], [1, 0, 2.5, 5]], np.float32),
            target_height=3,
            target_width=2,
            sampling_mode="ALIGN_CORNERS",
        ),
        IMAGE,
        "iOS17",
        False,
    ),
    "resample": (
        lambda given: [
            mb.resample(
                x=given.x,
                coordinates=given.y,
                sampling_mode="bilinear",
                padding_mode=mode,
                padding_value=np.float32(2.5),
                coordinates_mode="normalized_minus_one_to_one",
                align_corners=mode != "border",
            )
            for mode in ("constant", "border", "reflection", "symmetric")
        ],
        {"x": X, "y": _numbers(2, 5, 4, 2)},
        "iOS15",
        False,
    ),
    "non_maximum_suppression": (
        lambda given: mb.non_maximum_suppression(
            boxes=given.x,
            scores=given.y,
            iou_threshold=np.float32(0.3),
            score_threshold=np.float32(0),
            max_boxes=6,
            per_class_suppression=True,
        ),
        {"x": _numbers(2, 12, 4, low=0.5, high=3), "y": _numbers(2, 12, 3)},
        "iOS15",
        False,
    ),
    "select": (
        lambda given: mb.select(cond=mb.greater(x=given.x, y=np.float32(0)), a=given.x, b=np.float32(-1)),
        IMAGE,
        "iOS15",
        True,
    ),
}


def _both(build: Build, inputs: Mapping[str, Array], target: str, is_dynamic: bool) -> None:
    specification, weights = make_specification(build, inputs, target, is_dynamic=is_dynamic)
    package = read_specification(specification, weights)
    # As text, too, it is the same program.
    text = read_text(write_text(specification.mlProgram), "model.mil")
    assert_same(read_program(text, MemoryWeights(weights), "model.mil"), package.program)
    ours, _ = OnnxExecutor(package, num_threads=1).run(inputs, {})
    other, _ = Interpreter(package, "main").run(inputs, {})
    assert list(ours) == list(package.function().block.outputs)
    for name, have in ours.items():
        want = other[name]
        assert have.dtype == want.dtype
        assert have.shape == want.shape
        np.testing.assert_allclose(have, want, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", CASES)
def test_both_executors_agree(name: str) -> None:
    build, inputs, target, _ = CASES[name]
    _both(build, inputs, target, is_dynamic=False)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[3]])
def test_both_executors_agree_without_known_sizes(name: str) -> None:
    build, inputs, target, _ = CASES[name]
    _both(build, inputs, target, is_dynamic=True)
