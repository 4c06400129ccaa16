"""The classes of ONNX's core operators."""

from typing import Final

from triune.planning.op import OpClass

_VIEWS: Final = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Identity", "Flatten", "Shape"})
_MOVES: Final = frozenset(
    {
        "Transpose",
        "Concat",
        "Split",
        "Slice",
        "Expand",
        "Tile",
        "Pad",
        "Gather",
        "GatherElements",
        "GatherND",
        "ScatterElements",
        "ScatterND",
        "Range",
        "ConstantOfShape",
        "DepthToSpace",
        "SpaceToDepth",
        "Resize",
        "GridSample",
        "ReverseSequence",
        "OneHot",
        "Trilu",
    }
)
_REDUCTIONS: Final = frozenset(
    {
        "Softmax",
        "BatchNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "RMSNormalization",
        "AveragePool",
        "MaxPool",
        "ReduceSum",
        "ReduceMean",
        "ReduceMax",
        "ReduceMin",
        "ReduceProd",
        "ArgMax",
        "ArgMin",
        "CumSum",
        "TopK",
    }
)
_SERIAL: Final = frozenset({"LSTM", "GRU", "RNN", "If", "Loop", "NonZero", "NonMaxSuppression"})


def class_of(op_type: str) -> OpClass:
    """The class of an ONNX operator. `graph_ops` chooses other classes for some products and convolutions, by their
    shapes.
    """
    if op_type in ("MatMul", "Gemm"):
        return OpClass.MATMUL
    if op_type in ("Conv", "ConvTranspose"):
        return OpClass.CONV
    if op_type == "Attention":
        return OpClass.PRODUCT
    for names, found in (
        (_VIEWS, OpClass.VIEW),
        (_MOVES, OpClass.MOVE),
        (_REDUCTIONS, OpClass.REDUCE),
        (_SERIAL, OpClass.SERIAL),
    ):
        if op_type in names:
            return found
    return OpClass.ELEMENTWISE
