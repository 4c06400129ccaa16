"""Operators at which a request can end ONNX Runtime's process.

Found by running every operator that ONNX Runtime (1.32, on the CPU) has with hostile values and sizes in processes of
their own, on one thread and on several: indices and lengths out of range, extreme numbers, sizes of 0, sizes that do
not fit. All others answer or refuse. Integer division is not here: `guard` writes it so that it is safe.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

MICROSOFT = "com.microsoft"


@dataclass(frozen=True, slots=True)
class Fault:
    """When an operator ends the process. One that states no condition under which it does not, may always.

    Attributes:
        why: what happens.
        positive: inputs of which no size may be 0.
        numbers: axes of inputs whose sizes have to be numbers above 0, and not what requests bring.
        constant: inputs that have to be constants, which the first run has tried.
    """

    why: str
    positive: Sequence[int] = ()
    numbers: Mapping[int, Sequence[int]] = field(default_factory=dict[int, Sequence[int]])
    constant: Sequence[int] = ()


FAULTS: Final[Mapping[tuple[str, str], Fault]] = {
    ("", "Conv"): Fault("SIGFPE, or no end, where the kernel is empty", positive=(1,)),
    ("", "ConvTranspose"): Fault("SIGSEGV where a size of three is 0", positive=(0,)),
    ("", "GRU"): Fault("SIGABRT where there are no steps or no rows", positive=(0,)),
    ("", "LSTM"): Fault("SIGABRT where there are no steps or no rows", positive=(0,)),
    ("", "RoiAlign"): Fault("SIGSEGV by regions that are larger than the memory", constant=(1,)),
    ("", "STFT"): Fault("SIGFPE where the frame's length is 0", constant=(3,)),
    ("", "Unique"): Fault("SIGABRT where the slices along its axis are empty", positive=(0,)),
    ("ai.onnx.ml", "FeatureVectorizer"): Fault("SIGABRT where there are no rows", positive=range(1 << 10)),
    (MICROSOFT, "DynamicQuantizeLSTM"): Fault("SIGABRT where there are no steps or no rows", positive=(0,)),
    (MICROSOFT, "FusedConv"): Fault("no end where the kernel is empty", positive=(1,)),
    (MICROSOFT, "GroupQueryAttention"): Fault("SIGFPE where queries are empty", numbers={0: (-1,)}),
    (MICROSOFT, "Inverse"): Fault("SIGSEGV where the matrix is not square", numbers={0: (-1, -2)}),
    (MICROSOFT, "MultiHeadAttention"): Fault("SIGFPE, SIGSEGV by the size of values", numbers={2: (-1,), 7: (-1,)}),
    (MICROSOFT, "QAttention"): Fault("SIGFPE where there are no rows", positive=(0,)),
    (MICROSOFT, "QLinearGlobalAveragePool"): Fault("SIGSEGV by scales that do not fit", constant=(1, 3)),
    (MICROSOFT, "RotaryEmbedding"): Fault("SIGSEGV where heads are empty", numbers={0: (-1,)}),
    (MICROSOFT, "SkipLayerNormalization"): Fault("SIGFPE where what is added is empty", positive=(1,)),
    (MICROSOFT, "SkipSimplifiedLayerNormalization"): Fault("SIGFPE where what is added is empty", positive=(1,)),
}
"""By domain and operator, with ONNX Runtime 1.32."""

TRIED: Final = frozenset(
    {
        "Attention",
        "BiasGelu",
        "CDist",
        "ConvTransposeWithDynamicPads",
        "CropAndResize",
        "DecoderMaskedMultiHeadAttention",
        "DequantizeLinear",
        "DynamicQuantizeMatMul",
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
        "MatMulIntegerToFloat",
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
"""Operators of ONNX Runtime's own that were tried and are no hazard. What was not tried may do anything."""


UNTRIED: Final = Fault("nobody has tried whether requests can end the process with it")
"""Of ONNX Runtime's other own operators."""
