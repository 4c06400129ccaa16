"""Runs other projects' converters ("peers") on ONNX's node tests, each with its own Python, and counts their failures
and Triune's by family of operators.
"""

import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, numpy_helper

from support.converted_cases import deciding_inputs
from support.onnx_cases import Case
from triune.graph.decompose import STANDARD

_SCRIPT = Path(__file__).with_name("peer_convert.py")

FAMILIES = {
    "arithmetic": "Abs Neg Add Sub Mul Div Pow Mod Max Min Sum Mean Sqrt Reciprocal Exp Log Floor Ceil Round Sign Clip "
    "BitShift BitwiseAnd BitwiseOr BitwiseXor BitwiseNot Erf Cast CastLike BitCast Identity IsNaN IsInf CumSum CumProd",
    "trigonometry": "Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh Tanh",
    "logic": "And Or Xor Not Equal Greater GreaterOrEqual Less LessOrEqual Where",
    "activation": "Relu LeakyRelu Elu Selu Celu PRelu ThresholdedRelu Sigmoid HardSigmoid HardSwish Softplus Softsign "
    "Mish Gelu Swish Shrink Softmax LogSoftmax Hardmax",
    "reduction": "ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp "
    "ReduceSumSquare ArgMax ArgMin TopK",
    "product": "MatMul Gemm Einsum Det MatMulInteger QLinearMatMul DFT STFT",
    "convolution and pool": "Conv ConvTranspose ConvInteger QLinearConv DeformConv AveragePool MaxPool LpPool "
    "MaxUnpool GlobalAveragePool GlobalMaxPool GlobalLpPool Col2Im CausalConvWithState",
    "normalization": "BatchNormalization InstanceNormalization LayerNormalization GroupNormalization LpNormalization "
    "RMSNormalization MeanVarianceNormalization LRN Dropout",
    "shape": "Shape Size Reshape Flatten Transpose Squeeze Unsqueeze Concat Split Slice Expand Tile Pad Range Trilu "
    "ConstantOfShape EyeLike CenterCropPad DepthToSpace SpaceToDepth ReverseSequence Constant",
    "gather and scatter": "Gather GatherElements GatherND Scatter ScatterElements ScatterND TensorScatter OneHot "
    "NonZero Compress Unique",
    "image": "Resize Upsample GridSample AffineGrid RoiAlign NonMaxSuppression ImageDecoder",
    "sequence model": "LSTM GRU RNN Attention RotaryEmbedding",
    "control flow": "If Loop Scan",
    "quantization": "QuantizeLinear DequantizeLinear DynamicQuantizeLinear",
    "loss and training": "NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss Adam Adagrad Momentum",
}
FAMILY_OF = {op: family for family, ops in FAMILIES.items() for op in ops.split()}


def family_of(case: Case) -> str:
    """The family of the operator that a case tests. For an expanded function, it is the operator in the case's name."""
    names = {op.lower(): op for op in (*FAMILY_OF, *STANDARD)}
    stem = case.name.removeprefix("test_").replace("_", "")
    found = max((key for key in names if stem.startswith(key)), key=len, default="")
    main = case.model.graph.node[-1].op_type
    return FAMILY_OF.get(names.get(found, main), FAMILY_OF.get(main, "other"))


def bind(case: Case) -> ModelProto | None:
    """Replace the inputs that determine shapes by constants. None if the case has no such inputs."""
    bound = deciding_inputs(case)
    if not bound:
        return None
    model = ModelProto()
    model.CopyFrom(case.model)
    kept = [value for value in model.graph.input if value.name not in bound]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in bound.items())
    return model


def convert_all(
    python: str, peer: str, cases: Sequence[Case], folder: Path, suffix: str
) -> Callable[[str], Path | None]:
    """Let the peer convert all cases. Those that it refuses are tried again with the inputs that determine shapes as
    constants. Returns the path of each result.

    Args:
        python: a Python with the peer installed.
        peer: the peer's module, one of those that `peer_convert.py` supports.
        cases: the cases to convert.
        folder: the folder for files.
        suffix: the suffix of the results.
    """
    _convert(python, peer, {case.name: case.model for case in cases}, folder / "free")
    bound = {
        case.name: model
        for case in cases
        if not (folder / "free" / f"{case.name}{suffix}").exists() and (model := bind(case)) is not None
    }
    _convert(python, peer, bound, folder / "bound")

    def path(name: str) -> Path | None:
        places = (folder / each / f"{name}{suffix}" for each in ("free", "bound"))
        return next((each for each in places if each.exists()), None)

    return path


def _convert(python: str, peer: str, cases: Mapping[str, ModelProto], folder: Path) -> None:
    """Convert cases with the peer. If a case ends the peer's process, it is skipped."""
    folder.mkdir()
    for name, model in cases.items():
        onnx.save(model, folder / f"{name}.onnx")
    while True:
        run = subprocess.run([python, str(_SCRIPT), peer, str(folder)], capture_output=True, text=True, check=False)
        lines = run.stdout.splitlines()
        if run.returncode == 0 or not lines:
            return
        # Remove the case at which the process ended, and the finished cases, before the next start.
        for line in lines:
            (folder / f"{line.split(':')[0]}.onnx").unlink(missing_ok=True)


def table(peer: str, rows: Iterable[tuple[Case, str, str]]) -> str:
    """Make a table of the counts by family, in Markdown.

    Args:
        peer: the peer's name.
        rows: each case with Triune's failure and the peer's failure, each empty if there is none.
    """
    counts: Counter[tuple[str, str, str]] = Counter()
    for case, ours, theirs in rows:
        family = family_of(case)
        counts[family, "all", ""] += 1
        counts[family, "ours", ours.split(":")[0]] += 1
        counts[family, "theirs", theirs.split(":")[0]] += 1
    lines = [
        f"| family | cases | Triune | {peer} | wrong or broken: Triune | wrong or broken: {peer} |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    totals = [0] * 5
    for family in (*FAMILIES, "other"):
        if not counts[family, "all", ""]:
            continue
        row = [
            counts[family, "all", ""],
            counts[family, "ours", ""],
            counts[family, "theirs", ""],
            counts[family, "ours", "wrong"] + counts[family, "ours", "error"],
            counts[family, "theirs", "wrong"] + counts[family, "theirs", "error"],
        ]
        totals = [a + b for a, b in zip(totals, row, strict=True)]
        lines.append(f"| {family} | " + " | ".join(map(str, row)) + " |")
    lines.append("| **all** | " + " | ".join(f"**{each}**" for each in totals) + " |")
    return "\n".join(lines)
