"""The operands and attributes that ONNX Runtime's own operators (com.microsoft) have, for each operator.

They are taken from onnxruntime 1.32 (`get_all_operator_schema`), except that an operand of one float type may have any
float type.
"""

from collections.abc import Mapping

from onnx import TensorProto

_T = TensorProto
KINDS: Mapping[str, tuple[str, frozenset[int]]] = {
    "F": ("floats", frozenset([_T.FLOAT, _T.DOUBLE, _T.FLOAT16, _T.BFLOAT16])),
    "q": ("INT8 or UINT8", frozenset([_T.INT8, _T.UINT8])),
    "Z": ("UINT8, or floats", frozenset([_T.UINT8, _T.FLOAT, _T.DOUBLE, _T.FLOAT16, _T.BFLOAT16])),
    "L": (
        "integers of at most 32 bits",
        frozenset([_T.INT4, _T.UINT4, _T.INT8, _T.UINT8, _T.INT16, _T.UINT16, _T.INT32]),
    ),
    "i": ("INT32", frozenset([_T.INT32])),
    "l": ("INT64", frozenset([_T.INT64])),
    "I": ("INT32 or INT64", frozenset([_T.INT32, _T.INT64])),
    "b": ("BOOL", frozenset([_T.BOOL])),
    "A": ("any type", frozenset(_T.DataType.values())),
}
"""The types of an operand, by the letter that `SIGNATURES` uses."""

SIGNATURES: Mapping[str, str] = {
    "Gelu": "F",
    "BiasGelu": "F1 F1",
    "FastGelu": "F1 F1?",
    "QuickGelu": "F",
    "SkipLayerNormalization": "F1 F1 F1 F1? F1?",
    "SkipSimplifiedLayerNormalization": "F1 F1 F1 F1?",
    "EmbedLayerNormalization": "i i? F1 F1 F1? F1 F1 i? i?",
    "QEmbedLayerNormalization": "i i? q q q? q q i? F F F? F F q q q? q q",
    "CDist": "F1 F1",
    "FusedMatMul": "F1 F1",
    "TransposeMatMul": "F1 F1",
    "FusedMatMulActivation": "F1 F1",
    "FusedGemm": "A1 A1 A1?",
    "FusedConv": "F1 F1 F1? F1?",
    "NhwcConv": "F1 F1 F1?",
    "NhwcFusedConv": "F1 F1 F1? F1?",
    "NhwcMaxPool": "q",
    "ConvTransposeWithDynamicPads": "F1 F1 l? F1?",
    "Attention": "F1 F1 F1? i? F1? F1? i?",
    "QAttention": "q1 q2 F3 F3 F3 i? q1? q2? F3?",
    "MultiHeadAttention": "F1 F1? F1? F1? i? F1? F1? F1? i? i?",
    "GroupQueryAttention": "F1 F1? F1? A? A? i i F1? F1? l? F1? F1? F? F? F1? F1? i?",
    "RotaryEmbedding": "F1 l F1 F1",
    "QLinearAdd": "q1 F q1? q1 F q1? F q1?",
    "QLinearMul": "q1 F q1? q1 F q1? F q1?",
    "QLinearSigmoid": "q1 F q1? F q1?",
    "QLinearLeakyRelu": "q1 F q1? F q1?",
    "QLinearSoftmax": "q1 F q1? F q1",
    "QLinearAveragePool": "q1 F q1? F q1?",
    "QLinearGlobalAveragePool": "q1 F q1 F q1",
    "QLinearReduceMean": "q1 F q1? F q1?",
    "QLinearWhere": "b q1 F q1 q1 F q1 F q1",
    "QLinearConv": "q1 F q1 q2 F q2 F q i?",
    "MatMulIntegerToFloat": "q1 q2 F3 F3 q1? q2? F3?",
    "DynamicQuantizeMatMul": "F1 q2 F1 q2? F1?",
    "QGemm": "q1 F q1 q2 F q2 i? F? q?",
    "DynamicQuantizeLSTM": "F q q F? i? F? F? F? F q F q",
    "MatMulNBits": "F q F Z? i? F?",
    "GatherBlockQuantized": "A I A A?",
    "Range": "A1 A1 A1?",
    "Trilu": "A l?",
    "QuantizeLinear": "F F L?",
    "DequantizeLinear": "L1 F L1?",
    "GatherND": "A I",
    "Pad": "F1 l F1?",
    "GridSample": "A1 A1",
    "ExpandDims": "A i",
}
"""The types of each operator's operands, in order, as letters of `KINDS`. Operands with the same letter and number have
the same type; "?" marks an optional operand.
"""

REQUIRED: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(["Attention", "QAttention", "MultiHeadAttention"], ("num_heads",)),
    "GroupQueryAttention": ("num_heads", "kv_num_heads"),
    **dict.fromkeys(["NhwcMaxPool", "QLinearAveragePool"], ("kernel_shape",)),
    "FusedMatMulActivation": ("activation",),
    "QLinearSoftmax": ("opset",),
    "QLinearConcat": ("axis",),
    "DynamicQuantizeLSTM": ("hidden_size",),
    "MatMulNBits": ("K", "N", "block_size"),
}
