"""Converts ONNX's node tests to another format, computes them, and returns whether the answers are right, or the
reason.

A reason begins with what happened: `unsupported` (refused, with the reason), `wrong` (another answer), `as ONNX
Runtime` (another answer, which is that of ONNX Runtime for the source), `error` (anything else). Some inputs determine
shapes by their values, such as the axes of a reduction or the sizes of a split. If the conversion refuses the case
because of them, they are replaced by constants, as `--constant` does.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, numpy_helper

from support.lowered import plain_answers
from support.onnx_cases import Case, difference, load_cases
from triune.core.errors import TriuneError, UnsupportedError
from triune.graph.passes.narrow_values import narrow_array

Arrays = Mapping[str, Any]

DECIDING = {
    **dict.fromkeys(["Reshape", "Expand", "Tile", "Squeeze", "Unsqueeze", "Split", "TopK", "Trilu"], (1,)),
    **dict.fromkeys(["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"], (1,)),
    **dict.fromkeys(["ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"], (1,)),
    **dict.fromkeys(["OneHot", "CumSum", "CumProd", "CenterCropPad", "AffineGrid", "SplitToSequence"], (1,)),
    "Loop": (0, 1),
    **dict.fromkeys(["ConstantOfShape", "HannWindow", "HammingWindow", "BlackmanWindow"], (0,)),
    "Slice": (1, 2, 3, 4),
    "Pad": (1, 2, 3),
    "Range": (0, 1, 2),
    "Resize": (1, 2, 3),
    "Upsample": (1,),
    "NonMaxSuppression": (2, 3, 4),
    "DFT": (1, 2),
    **dict.fromkeys(["SequenceAt", "SequenceErase"], (1,)),
    "SequenceInsert": (2,),
    "STFT": (1, 3),
    "Col2Im": (1, 2),
    "MaxUnpool": (2,),
    "Dropout": (1, 2),
    "MelWeightMatrix": (0, 1, 2, 3, 4),
}
"""The operands whose values decide shapes or what is computed."""


@dataclass(frozen=True)
class Runner:
    """Computes a converted model: maps inputs to outputs, both by the names in the source.

    Inputs are cast to the narrower types of Apple's programs, unless `is_wide`.
    """

    name: str
    run: Callable[[dict[str, Any]], Arrays]
    is_wide: bool = False


Convert = Callable[[ModelProto, Arrays], Sequence[Runner]]
"""Converts a model with some inputs bound to values."""


@dataclass(frozen=True)
class Result:
    """The result of a case.

    Attributes:
        failure: the category and the reason of a failure; empty if the case passed.
        num_bound: the number of inputs that had to be replaced by constants.
    """

    failure: str
    num_bound: int = 0


def result_of(case: Case, convert: Convert) -> Result:
    bound: dict[str, Any] = {}
    try:
        try:
            runners = convert(case.model, {})
        except UnsupportedError:
            bound = deciding_inputs(case)
            if not bound:
                raise
            runners = convert(case.model, bound)
    except UnsupportedError as error:
        return Result(f"unsupported: {first_reason(str(error))}")
    except TriuneError as error:
        return Result(f"error: {error}")
    for runner in runners:
        try:
            failure = _judge(case, runner, bound)
        except Exception as error:
            failure = f"error: {runner.name}: {type(error).__name__}: {error}"
        if failure:
            return Result(failure, len(bound))
    return Result("", len(bound))


def deciding_inputs(case: Case) -> dict[str, Any]:
    # A case for a function's body has the same inputs as the case for the function itself.
    whole = {each.name: each for each in load_cases()}.get(case.name.partition("_expanded")[0], case)
    names = {
        node.input[index]
        for node in whole.model.graph.node
        for index in DECIDING.get(node.op_type, ())
        if index < len(node.input)
    }
    # An initializer that is listed as an input is that input's default.
    inputs = {value.name for value in case.model.graph.input}
    defaults = {each.name: numpy_helper.to_array(each) for each in case.model.graph.initializer if each.name in inputs}
    return {name: array for name, array in {**defaults, **case.sets[0][0]}.items() if name in names}


def first_reason(message: str) -> str:
    head, _, reason = message.partition(": " if message.startswith("1 node cannot") else "\n")
    return reason.splitlines()[0].strip() if reason else head


def _judge(case: Case, runner: Runner, bound: Arrays) -> str:
    for feeds, expected in case.sets:
        arrays = {name: np.asarray(array) for name, array in feeds.items() if name not in bound}
        inputs = arrays if runner.is_wide else {name: narrow_array(name, array) for name, array in arrays.items()}
        results = runner.run(inputs)
        for index, (value, right) in enumerate(zip(case.model.graph.output, expected, strict=True)):
            right = np.asarray(right)
            actual = np.asarray(results[value.name])
            # A model with narrow types returns narrow types with the same values.
            actual = actual.astype(right.dtype)
            if case.is_random:
                actual = right if actual.shape == right.shape else actual
            # fp16 numbers below 2 are 1e-3 apart, and each runtime rounds at other points of the computation.
            atol = 1e-3 if right.dtype == np.float16 else 1e-5
            if found := difference(actual, right, rtol=max(case.rtol, 1e-3), atol=max(case.atol, atol)):
                # If ONNX Runtime also fails the case, with the same answer, the conversion counts as right.
                theirs = plain_answers(case.model, feeds)[index]
                is_theirs = not difference(actual, theirs, rtol=1e-3, atol=1e-5)
                kind = "as ONNX Runtime" if is_theirs else "wrong"
                return f"{kind}: {runner.name}: output '{value.name}' {found}"
    return ""
