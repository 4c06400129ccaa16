"""What a function computes in: the fewest digits among what its operations make, wherever they are."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from support.coreai_programs import Build, Sample, add_graph, grouped, ints, numbers, ops, packed, save
from triune.coreai.description import describe
from triune.coreai.lowering.values import tensor_type
from triune.coreai.precision import precision_of
from triune.coreai.program import functions_of, graphs_of, load_program

X = numbers(2, 3)
HALF = X.astype(np.float16)


def _through(dtype: Any) -> Build:
    """Computed in `dtype`, between fp32 and fp32."""

    def build(x: Any) -> Any:
        narrow = ops.cast(x, dtype)
        return ops.cast(ops.mul(narrow, narrow), np.float32)

    return build


def _branch(x: Any) -> Any:
    result, (yes, no) = ops.if_([x.type], ops.shrink_dims(ops.any_(ops.not_equal(x, x), ints(0, 1)), ints(0, 1)))
    with yes:
        ops.yield_([_through(np.float16)(x)])
    with no:
        ops.yield_([x])
    return result


def _kept_narrow(x: Any) -> Any:
    return ops.mul(x, ops.cast(ops.constant(HALF), np.float32))


def _packed(x: Any) -> Any:
    ones = np.ones((2, 3), np.float32)
    data, point = packed(np.ones((2, 3)), "si4"), packed(np.zeros((2, 3)), "si4")
    return ops.mul(x, ops.blockwise_shift_scale(data, ones, point, 0 * ones))


def _precision(path: Path) -> str:
    """As `describe` tells it, but no process of its own reads first what a test has just written."""
    program = load_program(path)
    graphs = graphs_of(program)
    (graph,) = functions_of(graphs).values()
    return precision_of(graph, graphs)


@pytest.mark.parametrize(
    ("build", "x", "told"),
    [
        (lambda x: ops.relu(x), X, "fp32"),
        (lambda x: ops.relu(x), HALF, "fp16"),
        (lambda x: ops.relu(x), X.astype(ml_dtypes.bfloat16), "bf16"),
        (lambda x: ops.relu(x), X.astype(np.int32), "fp32"),
        (_through(np.float16), X, "fp16"),
        (_through(ml_dtypes.bfloat16), X, "bf16"),
        (lambda x: _through(ml_dtypes.bfloat16)(_through(np.float16)(x)), X, "bf16"),
        # An interface of fp16 is none that is computed in.
        (lambda x: ops.relu(ops.cast(x, np.float32)), HALF, "fp32"),
        (grouped(lambda x: [_through(np.float16)(x)]), X, "fp16"),
        (_branch, X, "fp16"),
        (_kept_narrow, X, "fp32"),
        (_packed, X, "fp32"),
    ],
    ids=[
        "fp32",
        "fp16",
        "bf16",
        "whole",
        "within",
        "bf16_within",
        "both",
        "interface",
        "group",
        "branch",
        "constants",
        "packed",
    ],
)
def test_the_fewest_digits_that_are_made(build: Build, x: Any, told: str, tmp_path: Path) -> None:
    assert _precision(save(Sample(build, {"x": x}), tmp_path / "m.aimodel")) == told


def test_what_is_invoked_counts(tmp_path: Path) -> None:
    graphs: dict[str, Any] = {}

    def around(_module: Any) -> None:
        kind = tensor_type([2, 3], np.float32)
        graphs["inner"] = add_graph(
            "inner", [], [kind], _through(np.float16), result_names=[""], private=True, no_inline=True
        )

    def build(x: Any) -> Any:
        return next(iter(graphs["inner"](x)))

    path = save(Sample(build, {"x": X}), tmp_path / "m.aimodel", around=around)
    (function,) = describe(path).functions
    assert function.precision == "fp16"
