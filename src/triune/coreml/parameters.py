"""The parameters of MIL's operations up to iOS 18, with the defaults of those that are optional.

Core ML's files leave out parameters that have their default. A test compares this table with coremltools' definitions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Required:
    """A parameter without a default."""


@dataclass(frozen=True, slots=True)
class PerSpatial:
    """A default value: a list with `value` repeated `count` times for each dimension of `x` after batch and
    channels.
    """

    value: int
    count: int = 1


REQUIRED: Final = Required()
_X: Mapping[str, Any] = {"x": REQUIRED}
_XY: Mapping[str, Any] = {"x": REQUIRED, "y": REQUIRED}
_ALPHA: Mapping[str, Any] = {"x": REQUIRED, "alpha": REQUIRED}
_ALPHA_BETA: Mapping[str, Any] = {**_ALPHA, "beta": REQUIRED}
_REDUCE: Mapping[str, Any] = {"x": REQUIRED, "axes": None, "keep_dims": False}
_ARG: Mapping[str, Any] = {"x": REQUIRED, "axis": -1, "keep_dims": False, "output_dtype": "int32"}
_WINDOW: Mapping[str, Any] = {"strides": PerSpatial(1), "pad": PerSpatial(0, 2)}
_CONV: Mapping[str, Any] = {
    "x": REQUIRED,
    "weight": REQUIRED,
    "bias": None,
    **_WINDOW,
    "pad_type": "valid",
    "dilations": PerSpatial(1),
    "groups": 1,
}
_POOL: Mapping[str, Any] = {
    "x": REQUIRED,
    "kernel_sizes": REQUIRED,
    "pad_type": REQUIRED,
    **_WINDOW,
    "ceil_mode": False,
}
_SLICE: Mapping[str, Any] = {
    "begin": REQUIRED,
    "end": REQUIRED,
    "stride": None,
    "begin_mask": None,
    "end_mask": None,
    "squeeze_mask": None,
}
_SCATTER: Mapping[str, Any] = {
    "data": REQUIRED,
    "indices": REQUIRED,
    "updates": REQUIRED,
    "mode": "add",
    # Before iOS 17 there was no such parameter, and negative indices counted from the end.
    "validate_indices": None,
}
_SAMPLE: Mapping[str, Any] = {
    "x": REQUIRED,
    "sampling_mode": REQUIRED,
    "padding_mode": REQUIRED,
    "padding_value": REQUIRED,
    "coordinates_mode": REQUIRED,
    "align_corners": REQUIRED,
}
_UPSAMPLE: Mapping[str, Any] = {"x": REQUIRED, "scale_factor_height": 1, "scale_factor_width": 1}
_RECURRENT: Mapping[str, Any] = {
    "x": REQUIRED,
    "initial_h": REQUIRED,
    "weight_ih": REQUIRED,
    "weight_hh": REQUIRED,
    "bias": None,
    "direction": "forward",
    "output_sequence": False,
    "activation": "tanh",
}

_UNARY = (
    "abs acos asin atan atanh ceil cos cosh erf exp exp2 floor identity logical_not non_zero relu relu6 round shape "
    "sigmoid sign silu sin sinh softplus softsign sqrt square tan tanh"
)
_BINARY = (
    "add equal floor_div greater greater_equal less less_equal logical_and logical_or logical_xor maximum minimum "
    "mod mul not_equal pow real_div sub"
)
_REDUCTIONS = "l1_norm l2_norm log_sum log_sum_exp max mean min prod sum sum_square"

PARAMETERS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        **dict.fromkeys(_UNARY.split(), _X),
        **dict.fromkeys(_BINARY.split(), _XY),
        **dict.fromkeys(("elu", "leaky_relu", "prelu", "threshold", "thresholded_relu"), _ALPHA),
        **dict.fromkeys(
            ("clamped_relu", "clip", "linear_activation", "scaled_tanh", "sigmoid_hard", "softplus_parametric"),
            _ALPHA_BETA,
        ),
        **{f"reduce_{each}": _REDUCE for each in _REDUCTIONS.split()},
        "reduce_argmax": _ARG,
        "reduce_argmin": _ARG,
        "affine": {
            **_SAMPLE,
            "transform_matrix": REQUIRED,
            "output_height": REQUIRED,
            "output_width": REQUIRED,
        },
        "argsort": {"x": REQUIRED, "axis": -1, "ascending": False},
        "avg_pool": {**_POOL, "exclude_padding_from_average": False},
        "band_part": {"x": REQUIRED, "lower": -1, "upper": -1},
        "batch_norm": {
            "x": REQUIRED,
            "mean": REQUIRED,
            "variance": REQUIRED,
            "gamma": None,
            "beta": None,
            "epsilon": 1e-5,
        },
        "batch_to_space": {"x": REQUIRED, "block_shape": REQUIRED, "crops": REQUIRED},
        "cast": {"x": REQUIRED, "dtype": REQUIRED},
        "classify": {"probabilities": REQUIRED, "classes": REQUIRED},
        "concat": {"values": REQUIRED, "axis": REQUIRED, "interleave": False},
        "cond": {"pred": REQUIRED},
        "const": {"val": REQUIRED},
        "constexpr_affine_dequantize": {
            "quantized_data": REQUIRED,
            "zero_point": REQUIRED,
            "scale": REQUIRED,
            "axis": REQUIRED,
        },
        "constexpr_blockwise_shift_scale": {"data": REQUIRED, "scale": REQUIRED, "offset": None},
        "constexpr_cast": {"source_val": REQUIRED, "output_dtype": REQUIRED},
        # iOS 16 gives `shape`, iOS 18 may give `vector_axis`.
        "constexpr_lut_to_dense": {"indices": REQUIRED, "lut": REQUIRED, "shape": None, "vector_axis": None},
        "constexpr_lut_to_sparse": {
            "indices_mask": REQUIRED,
            "indices_nonzero_data": REQUIRED,
            "lut": REQUIRED,
            "vector_axis": None,
        },
        "constexpr_sparse_blockwise_shift_scale": {
            "data_mask": REQUIRED,
            "nonzero_data": REQUIRED,
            "scale": REQUIRED,
            "offset": None,
        },
        "constexpr_sparse_to_dense": {"nonzero_data": REQUIRED, "mask": REQUIRED, "shape": None},
        "conv": _CONV,
        "conv_quantized": {
            **_CONV,
            "quantization_type": REQUIRED,
            "nbits": 8,
            "quant_scale": REQUIRED,
            "quant_bias": REQUIRED,
        },
        "conv_transpose": {**_CONV, "output_shape": None},
        "crop": {"x": REQUIRED, "crop_height": REQUIRED, "crop_width": REQUIRED},
        # Up to iOS 16: `roi`. From iOS 17: `boxes`, and their image numbers `box_indices`, by default 0, 1, 2, ...
        "crop_resize": {
            "x": REQUIRED,
            "roi": None,
            "boxes": None,
            "box_indices": None,
            "target_height": 1,
            "target_width": 1,
            "normalized_coordinates": False,
            "spatial_scale": 1.0,
            "box_coordinate_mode": "CORNERS_HEIGHT_FIRST",
            "sampling_mode": "DEFAULT",
            "pad_value": 0.0,
        },
        "cumsum": {"x": REQUIRED, "axis": 0, "exclusive": False, "reverse": False},
        "depth_to_space": {"x": REQUIRED, "block_size": REQUIRED},
        "dequantize": {"input": REQUIRED, "zero_point": None, "scale": REQUIRED, "axis": None},
        "einsum": {"values": REQUIRED, "equation": REQUIRED},
        "expand_dims": {"x": REQUIRED, "axes": REQUIRED},
        "fill": {"shape": REQUIRED, "value": 0.0},
        "fill_like": {"ref_tensor": REQUIRED, "value": 0.0},
        "flatten2d": {"x": REQUIRED, "axis": 1},
        "gather": {"x": REQUIRED, "indices": REQUIRED, "axis": 0, "batch_dims": 0, "validate_indices": False},
        "gather_along_axis": {"x": REQUIRED, "indices": REQUIRED, "axis": 0, "validate_indices": False},
        "gather_nd": {"x": REQUIRED, "indices": REQUIRED, "batch_dims": 0, "validate_indices": False},
        "gelu": {"x": REQUIRED, "mode": "EXACT"},
        "gru": {**_RECURRENT, "recurrent_activation": "sigmoid", "reset_after": None, "input_bias": None},
        "instance_norm": {"x": REQUIRED, "gamma": None, "beta": None, "epsilon": 1e-5},
        "inverse": {"x": REQUIRED, "epsilon": 1e-4},
        "l2_norm": {"x": REQUIRED, "epsilon": 1e-6},
        "l2_pool": _POOL,
        # `axes` of None means all axes.
        "layer_norm": {"x": REQUIRED, "axes": None, "gamma": None, "beta": None, "epsilon": 1e-5},
        # `bias` of None means zeros.
        "linear": {"x": REQUIRED, "weight": REQUIRED, "bias": None},
        "list_gather": {"ls": REQUIRED, "indices": REQUIRED},
        "list_length": {"ls": REQUIRED},
        "list_read": {"ls": REQUIRED, "index": REQUIRED},
        "list_scatter": {"ls": REQUIRED, "indices": REQUIRED, "value": REQUIRED},
        "list_write": {"ls": REQUIRED, "index": REQUIRED, "value": REQUIRED},
        "local_response_norm": {"x": REQUIRED, "size": REQUIRED, "alpha": 1e-4, "beta": 0.75, "k": 1.0},
        "log": {"x": REQUIRED, "epsilon": 1e-45},
        "lstm": {
            **_RECURRENT,
            "initial_c": REQUIRED,
            "peephole": None,
            "weight_ih_back": None,
            "weight_hh_back": None,
            "bias_back": None,
            "peephole_back": None,
            "recurrent_activation": "sigmoid",
            "cell_activation": "tanh",
            "clip": None,
        },
        "make_list": {"init_length": 1, "dynamic_length": True, "elem_shape": REQUIRED, "dtype": "fp32"},
        "matmul": {"x": REQUIRED, "y": REQUIRED, "transpose_x": False, "transpose_y": False},
        "max_pool": _POOL,
        # Since iOS 17 there is no `score_threshold`.
        "non_maximum_suppression": {
            "boxes": REQUIRED,
            "scores": REQUIRED,
            "iou_threshold": REQUIRED,
            "score_threshold": None,
            "max_boxes": REQUIRED,
            "per_class_suppression": False,
        },
        "one_hot": {"indices": REQUIRED, "one_hot_vector_size": REQUIRED, "axis": -1, "on_value": 1, "off_value": 0},
        "pad": {"x": REQUIRED, "pad": REQUIRED, "mode": "constant", "constant_val": 0.0},
        "pixel_shuffle": {"x": REQUIRED, "upscale_factor": REQUIRED},
        "pixel_unshuffle": {"x": REQUIRED, "downscale_factor": REQUIRED},
        "quantize": {"input": REQUIRED, "zero_point": None, "scale": REQUIRED, "axis": None, "output_dtype": REQUIRED},
        "random_bernoulli": {"shape": REQUIRED, "prob": 0.5, "seed": -1},
        "random_categorical": {"x": REQUIRED, "mode": "logits", "size": 1, "seed": -1},
        "random_normal": {"shape": REQUIRED, "mean": 0.0, "stddev": 1.0, "seed": -1},
        "random_uniform": {"shape": REQUIRED, "low": 0.0, "high": 1.0, "seed": -1},
        "range_1d": {"end": REQUIRED, "start": REQUIRED, "step": REQUIRED},
        "read_state": {"input": REQUIRED},
        "resample": {**_SAMPLE, "coordinates": REQUIRED},
        "reshape": {"x": REQUIRED, "shape": REQUIRED},
        "reshape_like": {
            "x": REQUIRED,
            "ref_tensors": REQUIRED,
            "begins": REQUIRED,
            "ends": REQUIRED,
            "end_masks": REQUIRED,
        },
        "resize": {
            "x": REQUIRED,
            "shape": REQUIRED,
            "resized_dims": REQUIRED,
            "interpolation_mode": "LINEAR",
            "sampling_mode": "DEFAULT",
        },
        "resize_bilinear": {
            "x": REQUIRED,
            "target_size_height": 1,
            "target_size_width": 1,
            "sampling_mode": "DEFAULT",
        },
        "resize_nearest_neighbor": {"x": REQUIRED, "target_size_height": REQUIRED, "target_size_width": REQUIRED},
        "reverse": {"x": REQUIRED, "axes": None},
        "reverse_sequence": {"x": REQUIRED, "lengths": REQUIRED, "seq_axis": 0, "batch_axis": 0},
        "rnn": _RECURRENT,
        "rsqrt": {"x": REQUIRED, "epsilon": 1e-12},
        "scaled_dot_product_attention": {
            "query": REQUIRED,
            "key": REQUIRED,
            "value": REQUIRED,
            "attn_mask": None,
        },
        "scatter": {**_SCATTER, "axis": 0},
        "scatter_along_axis": {**_SCATTER, "axis": 0},
        "scatter_nd": _SCATTER,
        "select": {"cond": REQUIRED, "a": REQUIRED, "b": REQUIRED},
        "slice_by_index": {"x": REQUIRED, **_SLICE},
        "slice_by_size": {"x": REQUIRED, "begin": REQUIRED, "size": REQUIRED},
        "slice_update": {"x": REQUIRED, "update": REQUIRED, **_SLICE},
        "sliding_windows": {"x": REQUIRED, "axis": REQUIRED, "size": REQUIRED, "stride": 1},
        "softmax": {"x": REQUIRED, "axis": -1},
        "space_to_batch": {"x": REQUIRED, "block_shape": REQUIRED, "paddings": REQUIRED},
        "space_to_depth": {"x": REQUIRED, "block_size": REQUIRED},
        "split": {"x": REQUIRED, "num_splits": None, "split_sizes": None, "axis": REQUIRED},
        "squeeze": {"x": REQUIRED, "axes": None},
        "stack": {"values": REQUIRED, "axis": REQUIRED},
        "tile": {"x": REQUIRED, "reps": REQUIRED},
        "topk": {
            "x": REQUIRED,
            "k": 1,
            "axis": -1,
            "ascending": False,
            "sort": True,
            "return_indices": True,
            # None means int32.
            "output_indices_dtype": None,
        },
        "transpose": {"x": REQUIRED, "perm": REQUIRED},
        "upsample_bilinear": {**_UPSAMPLE, "align_corners": True, "half_pixel_centers": None},
        "upsample_nearest_neighbor": _UPSAMPLE,
        "while_loop": {"loop_vars": REQUIRED},
        # Core ML's operation, which coremltools writes instead of its own `coreml_update_state`.
        "write_state": {"input": REQUIRED, "data": REQUIRED},
    }
)
