"""Cases: products, convolutions, pools, normalizations, images, attention, suppression."""

from typing import Any

import numpy as np

from contract.coreml.cases import Case, alike, inferred, known, op, uniform
from contract.coreml.elementwise import IMAGE, X
from support.mil_programs import mb

_KERNEL = uniform(4, 2, 3, 2, seed=5)
_BIAS = uniform(4, seed=6)
_GAMMA, _BETA = uniform(2, seed=7, low=0.5, high=2), uniform(2, seed=8)
_MODES = "STRICT_ALIGN_CORNERS ALIGN_CORNERS DEFAULT OFFSET_CORNERS UNALIGN_CORNERS"


def _conv(name: str, **parameters: Any) -> Case:
    return alike(f"conv {name}", op("conv", weight=_KERNEL, bias=_BIAS, **parameters), x=IMAGE)


def _transposed(name: str, **parameters: Any) -> Case:
    return alike(f"conv_transpose {name}", op("conv_transpose", weight=_KERNEL.swapaxes(0, 1), **parameters), x=IMAGE)


def _pool(name: str, **parameters: Any) -> list[Case]:
    return [
        alike(f"{kind} {name}", op(kind, kernel_sizes=[3, 2], **parameters), x=IMAGE)
        for kind in ("avg_pool", "max_pool")
    ]


_PRODUCTS = [
    inferred("linear", op("linear", weight=uniform(5, 4, seed=1), bias=uniform(5, seed=2)), x=X),
    inferred("matmul", lambda v: mb.matmul(x=v.x, y=v.y, transpose_y=True), x=X, y=uniform(5, 4, seed=1)),
    inferred("matmul transposed", lambda v: mb.matmul(x=v.x, y=v.y, transpose_x=True), x=X, y=uniform(2, 3, 1)),
    known(
        "einsum",
        lambda v: mb.einsum(values=[v.x, v.y], equation="nchw,nwhu->nchu"),
        np.einsum("nchw,nwhu->nchu", uniform(1, 2, 3, 4), uniform(1, 4, 3, 2)),
        x=uniform(1, 2, 3, 4),
        y=uniform(1, 4, 3, 2),
    ),
    inferred(
        "attention",
        lambda v: mb.scaled_dot_product_attention(query=v.q, key=v.k, value=v.v, attn_mask=v.m),
        q=uniform(1, 2, 3, 4),
        k=uniform(1, 2, 5, 4, seed=1),
        v=uniform(1, 2, 5, 6, seed=2),
        m=uniform(3, 5, seed=3),
    ),
]

_MIXED = [
    known(
        f"matmul of {x} and constant {y}",
        op("matmul", y=np.arange(6).reshape(3, 2).astype(y)),
        np.array([[10, 13], [28, 40]], x),
        x=np.arange(6).reshape(2, 3).astype(x),
    )
    for x, y in (("int32", "float32"), ("float32", "int32"), ("int32", "int32"))
]

_ATTENTION = [
    inferred(
        "attention without a mask",
        lambda v: mb.scaled_dot_product_attention(query=v.q, key=v.q, value=v.v),
        q=uniform(2, 3, 4),
        v=uniform(2, 3, 1, seed=2),
    ),
    known(
        "attention with a mask of bool",
        lambda v: mb.scaled_dot_product_attention(
            query=v.q, key=v.q, value=v.v, attn_mask=mb.cast(x=v.m, dtype="bool")
        ),
        # The first sees the second alone, the second both alike.
        [[[2.0], [1.5]]],
        q=np.zeros((1, 2, 3), np.float32),
        v=np.array([[[1], [2]]], np.float32),
        m=np.array([[0, 1], [1, 1]], np.int32),
    ),
]

_CONVOLVED = [
    known(
        "conv by hand",
        op("conv", weight=np.array([[[1, 10]]], np.float32), pad_type="custom", pad=[1, 0], strides=[2]),
        [[[10, 32]]],
        x=np.array([[[1, 2, 3, 4]]], np.float32),
    ),
    known(
        "conv_transpose by hand",
        op("conv_transpose", weight=np.array([[[1, 10]]], np.float32), strides=[1]),
        [[[1, 12, 20]]],
        x=np.array([[[1, 2]]], np.float32),
    ),
    _conv("valid"),
    _conv("same", pad_type="same", strides=[2, 3]),
    _conv("same_lower", pad_type="same_lower", strides=[2, 1]),
    _conv("custom", pad_type="custom", pad=[1, 0, 2, 1], dilations=[2, 1]),
    alike("conv in groups", op("conv", weight=uniform(4, 1, 2, 2), groups=2), x=IMAGE),
    alike("conv 1d", op("conv", weight=uniform(2, 3, 2), pad_type="same"), x=X),
    alike("conv 3d", op("conv", weight=uniform(2, 1, 2, 2, 2), strides=[1, 2, 1]), x=uniform(1, 1, 3, 4, 4)),
    _transposed("valid", strides=[2, 1]),
    _transposed("same", pad_type="same", strides=[2, 2]),
    _transposed("custom", pad_type="custom", pad=[1, 0, 0, 1], strides=[3, 2], dilations=[1, 2]),
    _transposed("of a size", pad_type="custom", pad=[1, 1, 1, 0], strides=[2, 2], output_shape=[1, 4, 10, 12]),
    alike("conv_transpose in groups", op("conv_transpose", weight=uniform(2, 2, 2, 2), groups=2), x=IMAGE),
    *_pool("valid", pad_type="valid", strides=[2, 1]),
    *_pool("same", pad_type="same", strides=[2, 2]),
    *_pool("custom", pad_type="custom", pad=[1, 1, 0, 1], strides=[2, 2]),
    *_pool("past the end", pad_type="custom", pad=[1, 1, 0, 0], strides=[3, 2], ceil_mode=True),
    alike(
        "avg_pool without padding",
        op("avg_pool", kernel_sizes=[3, 3], pad_type="same", exclude_padding_from_average=True),
        x=IMAGE,
    ),
    known(
        "l2_pool",
        op("l2_pool", kernel_sizes=[2], pad_type="valid", strides=[2]),
        [[[5.0, 13.0]]],
        x=np.array([[[3, 4, 5, 12]]], np.float32),
    ),
]

_NORMALIZED = [
    known(
        "batch_norm",
        op("batch_norm", mean=_BETA, variance=_GAMMA, gamma=_GAMMA, beta=_BETA, epsilon=np.float32(0.1)),
        (IMAGE - _BETA[:, None, None]) / np.sqrt(_GAMMA + 0.1)[:, None, None] * _GAMMA[:, None, None]
        + _BETA[:, None, None],
        x=IMAGE,
    ),
    known(
        "instance_norm",
        op("instance_norm", gamma=_GAMMA, beta=_BETA),
        (IMAGE - IMAGE.mean((2, 3), keepdims=True))
        / np.sqrt(IMAGE.var((2, 3), keepdims=True) + 1e-5)
        * _GAMMA[:, None, None]
        + _BETA[:, None, None],
        x=IMAGE,
    ),
    inferred("l2_norm", op("l2_norm", epsilon=np.float32(0.5)), x=IMAGE),
    inferred("layer_norm", op("layer_norm", axes=[-1], gamma=_BIAS, beta=_BIAS), x=X),
    alike("local_response_norm", op("local_response_norm", size=3, alpha=np.float32(0.5)), x=uniform(1, 5, 2, 2)),
]

_RESIZED = [
    known(
        "upsample_nearest_neighbor",
        op("upsample_nearest_neighbor", scale_factor_width=2),
        [[[0, 0, 1, 1]]],
        x=np.array([[[0, 1]]], np.float32),
    ),
    *(
        known(
            f"resize_bilinear {mode}",
            op("resize_bilinear", target_size_width=5, sampling_mode=mode),
            [[row]],
            x=np.array([[[0, 1]]], np.float32),
        )
        # The table of MIL's reference.
        for mode, row in {
            "STRICT_ALIGN_CORNERS": [0.0, 0.25, 0.5, 0.75, 1.0],
            "ALIGN_CORNERS": [0.0, 0.25, 0.5, 0.75, 1.0],
            "DEFAULT": [0.0, 0.4, 0.8, 1.0, 1.0],
            "OFFSET_CORNERS": [0.1, 0.3, 0.5, 0.7, 0.9],
            "UNALIGN_CORNERS": [0.0, 0.1, 0.5, 0.9, 1.0],
        }.items()
    ),
    *(
        alike(
            f"resize_bilinear {mode} {size}",
            op("resize_bilinear", target_size_height=size, target_size_width=9 - size, sampling_mode=mode),
            x=IMAGE,
        )
        for mode in _MODES.split()
        for size in (1, 3, 8)
    ),
    alike("upsample_bilinear", op("upsample_bilinear", scale_factor_height=2, align_corners=False), x=IMAGE),
    alike("resize", op("resize", shape=[7, 3], resized_dims=np.uint32(2), sampling_mode="UNALIGN_CORNERS"), x=IMAGE),
    known(
        "resize to the nearest",
        op("resize", shape=[1, 5], resized_dims=np.uint32(2), interpolation_mode="NEAREST_NEIGHBOR"),
        [[[[0, 0, 1, 1, 1]]]],
        x=np.array([[[[0, 1]]]], np.float32),
    ),
    *(
        known(
            f"crop_resize {name}",
            op(
                "crop_resize",
                boxes=np.array([box], np.float32),
                target_height=2,
                target_width=2,
                sampling_mode="ALIGN_CORNERS",
                pad_value=np.float32(10),
                normalized_coordinates=is_normalized,
            ),
            np.reshape(answer, (1, 1, 2, 2)),
            x=np.arange(1, 17, dtype=np.float32).reshape(1, 1, 4, 4),
        )
        for name, box, is_normalized, answer in (
            ("in pixels", [1, 1, 2, 2], False, [6, 7, 10, 11]),
            ("mirrored", [2, 2, 1, 1], False, [11, 10, 7, 6]),
            ("past the border", [0.1, 0.3, 1.3, 1.0], True, [3.1, 5.2, 10, 10]),
        )
    ),
    alike(
        "affine",
        op(
            "affine",
            transform_matrix=np.array([[0.9, -0.3, 0.1, 0.2, 1.1, -0.2]], np.float32),
            output_height=3,
            output_width=4,
            sampling_mode="bilinear",
            padding_mode="constant",
            padding_value=np.float32(0),
            coordinates_mode="normalized_minus_one_to_one",
            align_corners=True,
        ),
        x=IMAGE,
    ),
    *(
        alike(
            f"resample {padding} {coordinates}",
            op(
                "resample",
                coordinates=uniform(1, 3, 4, 2, seed=9),
                sampling_mode="bilinear",
                padding_mode=padding,
                padding_value=np.float32(3),
                coordinates_mode=coordinates,
                align_corners=is_aligned,
            ),
            tolerance=1e-4,
            x=IMAGE,
        )
        for padding, coordinates, is_aligned in (
            ("constant", "normalized_minus_one_to_one", True),
            ("border", "unnormalized", False),
            ("reflection", "normalized_zero_to_one", True),
            ("symmetric", "normalized_minus_one_to_one", False),
        )
    ),
    known(
        "non_maximum_suppression",
        lambda v: mb.non_maximum_suppression(
            boxes=v.b, scores=v.s, iou_threshold=np.float32(0.3), score_threshold=np.float32(0.1), max_boxes=3
        ),
        [[[5, 5, 2, 2], [1, 1, 2, 2], [0, 0, 0, 0]]],
        [[[0.9], [0.8], [0]]],
        [[2, 0, -1]],
        [2],
        target="iOS16",
        b=np.array([[[1, 1, 2, 2], [1.2, 1, 2, 2], [5, 5, 2, 2], [9, 9, 1, 1]]], np.float32),
        s=np.array([[[0.8], [0.7], [0.9], [0.05]]], np.float32),
    ),
]

CASES = [*_PRODUCTS, *_MIXED, *_ATTENTION, *_CONVOLVED, *_NORMALIZED, *_RESIZED]
