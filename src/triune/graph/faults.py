"""Operators with which a request can crash the process of a runtime.

They were found by running every operator of ONNX Runtime (1.32, on the CPU) and OpenVINO (2026.4) with hostile values
and sizes in a separate process, on one thread and on several: indices and lengths out of range, extreme numbers, sizes
of 0, sizes that do not fit. All other operators return a result or an error. Integer division is not listed, since
`guard` rewrites it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

MICROSOFT = "com.microsoft"

_ALL: Final[Sequence[int] | None] = None
_NO_SIZES: Mapping[int, Sequence[int] | None] = {}


@dataclass(frozen=True, slots=True)
class Fault:
    """How an operator can crash the process, and the conditions on its inputs. Without conditions, any input may do so.

    Attributes:
        why: what happens, and when.
        sizes: the positions of inputs that must have no dimension of size 0, each with the axes that count; None for
            all axes.
        nonzero: the positions of integer inputs that must have no element 0.
        constant: the positions of inputs that must be constants or omitted: then a crash would occur in the first run,
            not depend on a request.
        with_attribute: the fault occurs only if the node has this attribute; "" if it does not matter.
        of_rank: the fault occurs only if the input at this position has this rank; None if it does not matter.
    """

    why: str
    sizes: Mapping[int, Sequence[int] | None] = field(default_factory=lambda: _NO_SIZES)
    nonzero: Sequence[int] = ()
    constant: Sequence[int] = ()
    with_attribute: str = ""
    of_rank: tuple[int, int] | None = None


Faults = Mapping[tuple[str, str], Fault]

FAULTS: Final[Faults] = {
    ("", "Conv"): Fault("SIGFPE, or no end, where the kernel is empty", {1: _ALL}),
    ("", "ConvTranspose"): Fault("SIGSEGV where a size of three is 0", {0: _ALL}, of_rank=(1, 5)),
    ("", "GRU"): Fault("SIGABRT where there are no steps or no rows", {0: _ALL}),
    ("", "LSTM"): Fault("SIGABRT where there are no steps or no rows", {0: _ALL}),
    ("", "RoiAlign"): Fault("SIGSEGV by regions that are larger than the memory", constant=(1,)),
    ("", "STFT"): Fault("SIGFPE where the frame's length is 0", {2: _ALL}, nonzero=(3,)),
    ("", "Unique"): Fault("SIGABRT where the slices along its axis are empty", {0: _ALL}, with_attribute="axis"),
    ("ai.onnx.ml", "FeatureVectorizer"): Fault("SIGABRT where there are no rows", dict.fromkeys(range(64), _ALL)),
    (MICROSOFT, "DynamicQuantizeLSTM"): Fault("SIGABRT where there are no steps or no rows", {0: _ALL}),
    (MICROSOFT, "DynamicQuantizeMatMul"): Fault("SIGSEGV by scales that do not fit", constant=(2, 3, 4)),
    (MICROSOFT, "FusedConv"): Fault("no end where the kernel is empty", {1: _ALL}),
    (MICROSOFT, "GroupQueryAttention"): Fault("SIGFPE where queries are empty", {0: (-1,)}),
    (MICROSOFT, "Inverse"): Fault("SIGSEGV where the matrix is not square"),
    (MICROSOFT, "MatMulIntegerToFloat"): Fault("SIGSEGV by scales that do not fit", constant=(3, 5, 6)),
    (MICROSOFT, "MultiHeadAttention"): Fault(
        "SIGFPE, SIGSEGV where values are empty, or not as large as those of the past", {2: (-1,)}, constant=(7,)
    ),
    (MICROSOFT, "QAttention"): Fault("SIGFPE where there are no rows", {0: _ALL}),
    (MICROSOFT, "QLinearGlobalAveragePool"): Fault("SIGSEGV by scales that do not fit", constant=(1, 3)),
    (MICROSOFT, "RotaryEmbedding"): Fault("SIGSEGV where heads are empty", {0: (-1,)}),
    (MICROSOFT, "SkipLayerNormalization"): Fault("SIGFPE where the skip input is empty", {1: _ALL}),
    (MICROSOFT, "SkipSimplifiedLayerNormalization"): Fault("SIGFPE where the skip input is empty", {1: _ALL}),
}
"""The faults of ONNX Runtime, by domain and operator."""

OPENVINO_FAULTS: Final[Faults] = {
    ("", "DFT"): Fault("SIGSEGV where sizes are other than the model's", {0: _ALL}),
    ("", "GRU"): Fault("SIGFPE where there are no rows", {0: _ALL}),
    ("", "LSTM"): Fault("SIGFPE where there are no rows", {0: _ALL}),
    ("", "Pad"): Fault("SIGSEGV by widths of 2 to the 31", constant=(1,)),
    ("", "RNN"): Fault("SIGFPE where there are no rows", {0: _ALL}),
    ("", "Range"): Fault("SIGFPE by a step of 0", constant=(2,)),
    ("", "Scan"): Fault("SIGFPE where a scanned input is empty", dict.fromkeys(range(64), _ALL)),
    ("", "Scatter"): Fault("SIGSEGV by indices out of range", constant=(1,)),
    ("", "ScatterElements"): Fault("SIGSEGV by indices out of range", constant=(1,)),
    (MICROSOFT, "DynamicQuantizeLSTM"): Fault("SIGFPE where there are no rows", {0: _ALL}),
}
"""The faults of OpenVINO, by domain and operator."""

TRIED: Final = frozenset(
    {
        "Attention",
        "BiasGelu",
        "CDist",
        "ConvTransposeWithDynamicPads",
        "CropAndResize",
        "DecoderMaskedMultiHeadAttention",
        "DequantizeLinear",
        "DynamicTimeWarping",
        "EmbedLayerNormalization",
        "ExpandDims",
        "FastGelu",
        "FusedGemm",
        "FusedMatMul",
        "GatherBlockQuantized",
        "GatherND",
        "Gelu",
        "GridSample",
        "MRotaryEmbedding",
        "MatMulBnb4",
        "MatMulNBits",
        "MaxpoolWithMask",
        "MoE",
        "MurmurHash3",
        "NGramRepeatBlock",
        "Pad",
        "QEmbedLayerNormalization",
        "QGemm",
        "QLinearAdd",
        "QLinearAveragePool",
        "QLinearConcat",
        "QLinearConv",
        "QLinearLeakyRelu",
        "QLinearMul",
        "QLinearSigmoid",
        "QLinearSoftmax",
        "QLinearWhere",
        "QMoE",
        "QuantizeLinear",
        "QuickGelu",
        "Range",
        "SampleOp",
        "ScaledSiLU",
        "Tokenizer",
        "TransposeMatMul",
        "Trilu",
        "UnfoldTensor",
        "Unique",
        "WordConvEmbedding",
    }
)
"""Operators of com.microsoft that were tested and do not crash. Others that are not in `FAULTS` may crash."""


UNTRIED: Final = Fault("it was not tested whether requests can crash the process with it")
"""The fault that is assumed of operators of com.microsoft that were not tested."""
