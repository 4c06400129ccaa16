"""What is wrong with the passes of coremltools that Triune does not run.

A test that fails here is good news: the pass has been mended. Then try it against `triune.coreml.audit`, and change
docs/decisions/0009-passes-of-coremltools.md and, where it shall run again, `passes.pipeline`.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from triune.core.errors import TriuneError
from triune.coreml.onnx_executor import OnnxExecutor
from triune.coreml.package import read_specification
from triune.coreml.quiet import quiet

with quiet():
    import coremltools
    from coremltools.converters.mil.mil.passes import pass_registry

    from triune.coreml.lowering.mb import Function, Program, mb, types
    from triune.coreml.lowering.passes.mil_pass import VendorPass
    from triune.coreml.lowering.saving import specification_of

_ct: Any = coremltools
_RNG = np.random.default_rng(0)


def _noise(*shape: int) -> Any:
    return _RNG.standard_normal(shape).astype(np.float32)


_IMAGE = _noise(1, 4, 5, 5)
_ROWS = _noise(2, 4)
_TINY = np.full((20, 20), 1e-13, np.float32)
_TWICE = np.concatenate([_TINY[:15], _TINY[15:] * 2])
_CHANNELS = np.arange(1, 7, dtype=np.float32).reshape(6, 1, 1)


@dataclass(frozen=True)
class Fault:
    """A program of one input, what a pass makes of it, and how that is wrong: other answers, or an error."""

    step: str
    name: str
    x: Any
    build: Callable[[Any], Any]
    error: str = ""


def _deconvolved(x: Any) -> Any:
    return mb.conv_transpose(x=x, weight=_noise(4, 3, 2, 2), groups=2)


def _convolved(x: Any, channels: int = 3) -> Any:
    return mb.conv(x=x, weight=_noise(channels, 4, 2, 2))


def _shared_bias(x: Any) -> Any:
    bias = mb.const(val=_noise(1, 3, 1, 1))
    return mb.sub(x=_convolved(x), y=bias), mb.mul(x=mb.reduce_mean(x=x, axes=[1, 2, 3], keep_dims=True), y=bias)


def _loop(x: Any) -> Any:
    outer = mb.mul(x=x, y=np.float32(10))
    first = mb.const(val=np.int32(0))

    def goes_on(_value: Any, count: Any) -> Any:
        return mb.less(x=count, y=np.int32(3))

    def body(_value: Any, count: Any) -> Any:
        return outer, mb.add(x=count, y=np.int32(1))

    return mb.relu(x=mb.while_loop(_cond=goes_on, _body=body, loop_vars=(x, first))[0])


def _norm(x: Any) -> Any:
    """The mean of squares is over another axis than the mean."""
    mean = mb.reduce_mean(x=x, axes=[2], keep_dims=True)
    one, other = mb.sub(x=x, y=mean), mb.sub(x=x, y=mean)
    variance = mb.add(x=mb.reduce_mean(x=mb.square(x=one), axes=[1], keep_dims=True), y=np.float32(1e-5))
    normal = mb.real_div(x=other, y=mb.pow(x=variance, y=np.float32(0.5)))
    return mb.add(x=mb.mul(x=normal, y=_noise(6)), y=_noise(6))


def _gelu(x: Any, half: float) -> Any:
    erf = mb.erf(x=mb.real_div(x=x, y=np.float32(1.4142135)))
    return mb.mul(x=mb.mul(x=x, y=np.float32(half)), y=mb.add(x=erf, y=np.float32(1)))


def _near_tanh_gelu(x: Any) -> Any:
    """0.0452 in the place of 0.044715."""
    inner = mb.add(x=x, y=mb.mul(x=np.float32(0.0452), y=mb.pow(x=x, y=np.float32(3))))
    sum_ = mb.add(x=np.float32(1), y=mb.tanh(x=mb.mul(x=np.float32(0.7978845), y=inner)))
    return mb.mul(x=mb.mul(x=np.float32(0.5), y=x), y=sum_)


def _prelu(x: Any) -> Any:
    negative = mb.mul(x=mb.relu(x=mb.mul(x=x, y=np.float32(-1))), y=_noise(4, 1, 1))
    return mb.add(x=mb.relu(x=x), y=negative)


def _turned_power(x: Any) -> Any:
    turned = mb.transpose(x=x, perm=[1, 0])
    return mb.transpose(x=mb.pow(x=turned, y=np.float32([[1], [2], [3]])), perm=[1, 0])


def _reflected(x: Any) -> Any:
    cuts = [mb.slice_by_index(x=x, begin=[0, 0, 0, at], end=[1, 1, 5, at + 1]) for at in (1, 3)]
    return mb.concat(values=[cuts[0], x, cuts[1]], axis=3), mb.exp(x=cuts[0])


def _stacked(x: Any) -> Any:
    stack = mb.stack(values=[x, mb.exp(x=x)], axis=1)
    return stack, mb.reshape(x=stack, shape=[1, 4, 3, 4])


def _high(x: Any) -> Any:
    rows = mb.conv(x=mb.expand_dims(x=x, axes=[2]), weight=_noise(3, 4, 3, 3), pad_type="custom", pad=[1, 1, 1, 1])
    return mb.squeeze(x=rows, axes=[2])


def _one_hot(x: Any) -> Any:
    rows = mb.one_hot(indices=x, one_hot_vector_size=5, axis=0, on_value=np.float32(1), off_value=np.float32(0))
    return mb.matmul(x=rows, y=_noise(5, 3))


def _twice(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """What is made, and the same made of it."""

    def build(x: Any) -> Any:
        once = make(x)
        return once, make(once)

    return build


def _dilated(x: Any) -> Any:
    spread = mb.space_to_batch(x=x, block_shape=[2, 2], paddings=[[0, 0], [0, 0]])
    return mb.batch_to_space(x=mb.conv(x=spread, weight=_noise(3, 2, 3, 3)), block_shape=[2, 2], crops=[[1, 0], [0, 0]])


def _pad(x: Any) -> Any:
    return mb.pad(x=x, pad=[1, 1], mode="constant", constant_val=np.float32(0))


FAULTS: Sequence[Fault] = (
    Fault(
        "common::divide_to_multiply",
        "quotient",
        np.arange(20, dtype=np.float32) * 41,
        lambda x: mb.floor(x=mb.real_div(x=x, y=np.float32(41))),
    ),
    Fault("common::fuse_conv_scale", "groups", _IMAGE, lambda x: mb.mul(x=_deconvolved(x), y=_CHANNELS)),
    Fault("common::fuse_conv_scale", "divisor", _IMAGE, lambda x: mb.real_div(x=np.float32(2), y=_convolved(x))),
    Fault(
        "common::fuse_conv_batchnorm",
        "groups",
        _IMAGE,
        lambda x: mb.batch_norm(
            x=_deconvolved(x), mean=_noise(6), variance=np.abs(_noise(6)), gamma=_noise(6), beta=_noise(6)
        ),
    ),
    Fault("common::fuse_conv_bias", "shared", _IMAGE, _shared_bias),
    Fault("common::fuse_conv_bias", "rank", _IMAGE, lambda x: mb.add(x=_convolved(x), y=_noise(1, 1, 3, 1, 1))),
    Fault(
        "common::fuse_conv_bias",
        "groups",
        _IMAGE,
        lambda x: mb.add(x=_deconvolved(x), y=np.float32(2)),
        "bias values 3 not equal",
    ),
    Fault(
        "common::fuse_elementwise_to_batchnorm",
        "unequal ranks",
        _noise(1, 3, 2, 2),
        lambda x: mb.add(x=mb.mul(x=x, y=_noise(3, 1, 1)), y=_noise(1, 1, 1, 1)),
        "BatchNormalization",
    ),
    Fault(
        "common::fuse_matmul_weight_bias",
        "minuend",
        _ROWS,
        lambda x: mb.sub(x=_noise(3), y=mb.matmul(x=x, y=_noise(4, 3))),
    ),
    Fault(
        "common::fuse_linear_bias",
        "rank",
        _ROWS,
        lambda x: mb.add(x=mb.linear(x=x, weight=_noise(3, 4)), y=_noise(1, 1, 3)),
    ),
    Fault("common::fuse_layernorm_or_instancenorm", "axes", _noise(2, 4, 6), _norm),
    Fault("common::fuse_gelu_exact", "near a half", _noise(4) * 100, lambda x: _gelu(x, 0.4995)),
    Fault(
        "common::fuse_leaky_relu",
        "rank",
        _noise(3),
        lambda x: mb.maximum(x=mb.mul(x=x, y=np.full((1, 1), 0.5, np.float32)), y=x),
    ),
    Fault(
        "common::fuse_reduce_mean",
        "n - 1",
        np.ones((2, 1200), np.float32),
        lambda x: mb.mul(x=mb.reduce_sum(x=x, axes=[1]), y=np.float32(1 / 1199)),
    ),
    Fault(
        "mil_backend::fuse_pow2_sqrt",
        "negative",
        np.float32([-3, 2]),
        lambda x: mb.mul(x=mb.sqrt(x=mb.pow(x=x, y=np.float32(2))), y=np.float32(1)),
    ),
    Fault("common::fuse_onehot_matmul_to_gather", "axis", np.int32([0, 4, 0, 1, 2]), _one_hot),
    Fault(
        "common::select_optimization",
        "infinite",
        np.float32([np.inf, 1, 2]),
        lambda x: mb.select(cond=np.array([True, False, False]), a=np.full(3, -np.inf, np.float32), b=x),
    ),
    Fault(
        "common::cast_optimization",
        "truth of a fraction",
        np.float32([0.4, -0.3, 2]),
        lambda x: mb.cast(x=mb.cast(x=mb.cast(x=x, dtype="int32"), dtype="bool"), dtype="int32"),
    ),
    Fault(
        "common::const_deduplication",
        "tiny",
        np.full((20, 20), 1e13, np.float32),
        lambda x: (mb.mul(x=x, y=_TINY), mb.mul(x=x, y=_TWICE)),
    ),
    Fault(
        "common::remove_redundant_ops",
        "signed zeros",
        _noise(4),
        lambda x: mb.exp(
            x=mb.add(x=mb.exp(x=mb.real_div(x=x, y=np.float32(0.0))), y=mb.real_div(x=x, y=np.float32(-0.0)))
        ),
    ),
    Fault(
        "common::noop_elimination",
        "floor",
        np.float32([-2.5, 1.5]),
        lambda x: mb.relu(x=mb.floor_div(x=x, y=np.float32(1))),
    ),
    Fault("common::loop_invariant_elimination", "from outside", np.float32([1, 2]), _loop),
    Fault("common::merge_consecutive_relus", "outputs", _noise(4), _twice(lambda x: mb.relu(x=x))),
    Fault("common::merge_consecutive_paddings", "outputs", _noise(1, 1, 3, 3), _twice(_pad), "cannot delete op"),
    Fault(
        "common::merge_consecutive_reshapes",
        "zero",
        _noise(2, 6),
        lambda x: mb.reshape(x=mb.reshape(x=x, shape=[3, 4]), shape=[0, -1]),
    ),
    Fault("common::fuse_gelu_tanh_approximation", "near", 2 * np.abs(_noise(8)), _near_tanh_gelu),
    Fault("common::fuse_prelu", "one channel", _noise(2, 1, 3, 3), _prelu, "Size of dimension 0 of alpha"),
    Fault("common::reduce_transposes", "power", _noise(2, 3), _turned_power, "Incompatible dim"),
    Fault("common::use_reflection_padding", "shared", _noise(1, 1, 5, 5), _reflected, "Cannot delete op"),
    Fault("common::replace_stack_reshape", "outputs", _noise(1, 2, 3, 4), _stacked, "cannot delete op"),
    Fault("common::compose_conv1d", "height", _noise(1, 4, 6), _high, "cannot select an axis to squeeze"),
    Fault("common::fuse_dilated_conv", "crops", _noise(1, 2, 8, 8), _dilated),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda each: f"{each.step.split('::')[1]}-{each.name}")
def test_the_pass_is_still_wrong(fault: Fault) -> None:
    after: list[Any] = []
    error = ""
    with quiet():
        program = _program(fault)
        before = _answers(program, fault.x)
        try:
            program = VendorPass(fault.step)(program)
            after = _answers(program, fault.x)
        except (TriuneError, ValueError) as raised:
            error = str(raised)
    if fault.error or error:
        assert fault.error
        assert fault.error in error, f"{fault.step} has been mended, or ends in another way: see the head of this file"
        return
    is_equal = len(before) == len(after) and all(map(_are_equal, before, after))
    assert not is_equal, f"{fault.step} has been mended: see the head of this file"


def test_every_fault_is_recorded_and_none_of_its_passes_runs() -> None:
    from triune.coreml.lowering.passes.pipeline import PASSES

    record = (Path(__file__).parents[4] / "docs/decisions/0009-passes-of-coremltools.md").read_text()
    for fault in FAULTS:
        assert f"`{fault.step.split('::')[1]}`" in record
        assert fault.step in pass_registry.PASS_REGISTRY.passes
        assert fault.step not in [each.name for each in PASSES]


def _program(fault: Fault) -> Any:
    kind = types.int32 if fault.x.dtype == np.int32 else types.fp32
    program = Program()
    with Function({"x": mb.placeholder(fault.x.shape, kind)}, opset_version=_ct.target.iOS17) as function:
        made = fault.build(SimpleNamespace(**function.inputs).x)
        function.set_outputs(list(made) if isinstance(made, tuple) else [made])
    program.add_function("main", function)
    function.set_input_types((_ct.TensorType(name="x", shape=fault.x.shape),))
    return program


def _answers(program: Any, x: Any) -> list[Any]:
    with tempfile.TemporaryDirectory() as folder:
        specification = specification_of(program, _ct.target.iOS17, Path(folder))
        executor = OnnxExecutor(read_specification(specification, Path(folder)), num_threads=1)
        return list(executor.run({"x": x}, {})[0].values())


def _are_equal(one: Any, other: Any) -> bool:
    return one.shape == other.shape and np.allclose(one, other, rtol=1e-5, atol=1e-15, equal_nan=True)
