"""Our table of MIL's parameters says what coremltools' own definitions say."""

from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil.mil import types
from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

from triune.coreml.parameters import PARAMETERS, REQUIRED, PerSpatial, Required

# Given in another form in files, or known by another name there.
NOT_IN_FILES = {"_true_fn", "_false_fn", "_existing_blocks", "_cond", "_body"}
# None in our table: the docstrings of the raiser and the interpreter say what it stands for.
SPOKEN_FOR = {
    *(("layer_norm", "axes"), ("linear", "bias"), ("crop_resize", "box_indices")),
    # A program that leaves it out is of an operator set before iOS 17: coremltools writes it into all others.
    *((op, "validate_indices") for op in ("scatter", "scatter_along_axis", "scatter_nd")),
}


class Input:
    """As much of a Var as `default_inputs` looks at."""

    rank = 5
    dtype = types.fp32
    shape = (1, 2, 3, 4, 5)
    val = None


def definitions() -> list[Any]:
    return [
        pytest.param(op, cls, id=f"{op}-{opset.name if opset else 'core'}")
        for op, versions in sorted(SSAOpRegistry.core_ops.items())
        for opset, cls in versions.items()
        if op != "_const_symbolic"
    ]


@pytest.mark.parametrize(("op", "cls"), definitions())
def test_table_agrees_with_coremltools(op: str, cls: Any) -> None:
    operation = cls.__new__(cls)
    spec = {name: kind for name, kind in cls.input_spec.input_types.items() if name not in NOT_IN_FILES}
    for name in spec:
        object.__setattr__(operation, name, Input())
    defaults = dict(cls.default_inputs(operation).items())
    ours = PARAMETERS[op]
    for name, kind in spec.items():
        assert name in ours, f"{op} has a parameter '{name}'"
        have = ours[name]
        if isinstance(have, PerSpatial):
            have = [have.value] * have.count * 3
        if (op, name) in SPOKEN_FOR:
            assert have is None
        elif not kind.optional:
            # None where another opset does not have it.
            assert isinstance(have, Required) or have is None
        else:
            want = defaults.get(name)
            assert (have is None) == (want is None)
            assert want is None or np.asarray(have, np.asarray(want).dtype) == pytest.approx(np.asarray(want))


def test_no_operation_is_missing() -> None:
    known = set(SSAOpRegistry.core_ops) - {"_const_symbolic"}
    assert known <= set(PARAMETERS)
    assert set(PARAMETERS) - known == {"write_state"}


def test_required_parameters_have_no_default() -> None:
    assert PARAMETERS["conv"]["x"] is REQUIRED
    assert PARAMETERS["conv"]["bias"] is None
