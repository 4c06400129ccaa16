"""ONNX's node tests through Triune's conversion and through onnx2coreml's, in one run: a table by operator family.

Usage: compare_onnx2coreml.py PYTHON, a Python with onnx2coreml==1.1.0 and coremltools==9.0 installed.

Both packages are computed by the same executor, Triune's raising to ONNX Runtime, and judged by the same tolerances.
Inputs that decide shapes are bound to their values where a conversion refuses the case otherwise, for both alike.
"""

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, numpy_helper

from conformance.test_onnx_to_coreml import given, result
from support.converted_cases import deciding_inputs
from support.onnx_cases import Case, difference, load_cases
from triune.coreml.model import Model
from triune.coreml.package import read_package
from triune.graph.decompose import STANDARD
from triune.graph.passes.narrow import narrow_array

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
    """By the operator that the case is about: of an expanded function, the one in its name."""
    names = {op.lower(): op for op in (*FAMILY_OF, *STANDARD)}
    stem = case.name.removeprefix("test_").replace("_", "")
    found = max((key for key in names if stem.startswith(key)), key=len, default="")
    main = case.model.graph.node[-1].op_type
    return FAMILY_OF.get(names.get(found, main), FAMILY_OF.get(main, "other"))


def bind(case: Case) -> ModelProto | None:
    """The case with the inputs that decide shapes as constants; None where there are none."""
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


def peer_packages(python: str, cases: dict[str, ModelProto], folder: Path) -> None:
    """Have the peer convert all; a case that ends its process is skipped."""
    folder.mkdir()
    for name, model in cases.items():
        onnx.save(model, folder / f"{name}.onnx")
    script = Path(__file__).with_name("peer_convert.py")
    while True:
        run = subprocess.run([python, str(script), str(folder)], capture_output=True, text=True, check=False)
        lines = run.stdout.splitlines()
        if run.returncode == 0 or not lines:
            return
        # What it was at when it died, and what it is done with, are out of the way.
        for line in lines:
            (folder / f"{line.split(':')[0]}.onnx").unlink(missing_ok=True)


def peer_failure(case: Case, path: Path) -> str:
    """What is wrong with the peer's package, or nothing."""
    if not path.exists():
        return "unsupported"
    try:
        model = Model(read_package(path), executor="onnxruntime")
        names = {feature.name for feature in model.interface.inputs}
        outputs = [feature.name for feature in model.interface.outputs]
        for feeds, expected in case.sets:
            inputs = {
                key: given(narrow_array(key, np.asarray(array)))
                for key, array in feeds.items()
                if key in names or _plain(key) in names
            }
            results = model.predict({key if key in names else _plain(key): array for key, array in inputs.items()})
            if len(outputs) != len(expected):
                return "wrong: outputs are missing"
            for name, right in zip(outputs, expected, strict=True):
                right = np.asarray(right)
                actual = np.asarray(results[name])
                if right.shape == () and actual.shape == (1,):
                    actual = actual.reshape(())
                actual = actual.astype(right.dtype)
                if case.is_random:
                    actual = right if actual.shape == right.shape else actual
                if found := difference(actual, right, rtol=max(case.rtol, 1e-3), atol=max(case.atol, 1e-5)):
                    return f"wrong: {found}"
    except Exception as error:
        return f"error: {type(error).__name__}: {error}"
    return ""


def _plain(name: str) -> str:
    return "".join(each if each.isalnum() else "_" for each in name)


def main() -> None:
    """Print the table."""
    cases = [case for case in load_cases() if case.is_eligible]
    if len(sys.argv) > 2:
        cases = cases[:: int(sys.argv[2])]
    counts: Counter[tuple[str, str, str]] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        peer_packages(sys.argv[1], {case.name: case.model for case in cases}, folder / "free")
        bound = {
            case.name: model
            for case in cases
            if not (folder / "free" / f"{case.name}.mlpackage").exists() and (model := bind(case)) is not None
        }
        peer_packages(sys.argv[1], bound, folder / "bound")
        for case in cases:
            family = family_of(case)
            ours = result(case, folder).failure
            free = folder / "free" / f"{case.name}.mlpackage"
            theirs = peer_failure(case, free if free.exists() else folder / "bound" / free.name)
            counts[family, "all", ""] += 1
            counts[family, "ours", ours.split(":")[0]] += 1
            counts[family, "theirs", theirs.split(":")[0]] += 1
    families = [family for family in (*FAMILIES, "other") if counts[family, "all", ""]]
    print("| family | cases | Triune | onnx2coreml | wrong or broken: Triune | wrong or broken: onnx2coreml |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    totals = [0] * 5
    for family in families:
        row = [
            counts[family, "all", ""],
            counts[family, "ours", ""],
            counts[family, "theirs", ""],
            counts[family, "ours", "wrong"] + counts[family, "ours", "error"],
            counts[family, "theirs", "wrong"] + counts[family, "theirs", "error"],
        ]
        totals = [a + b for a, b in zip(totals, row, strict=True)]
        print(f"| {family} | " + " | ".join(map(str, row)) + " |")
    print("| **all** | " + " | ".join(f"**{each}**" for each in totals) + " |")


if __name__ == "__main__":
    main()
