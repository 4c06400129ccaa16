"""Why an operator is left after normalization, and what to do about it."""

from collections.abc import Mapping

from onnx import NodeProto

_TEXT = "it works on text, and programs have numbers alone; do it before the model"
_SEQUENCE = "the length of its sequence, or a place in it, is computed; write the tensors out, or fix their number"
_TREES = "trees have no form in tensor programs; keep them in ONNX Runtime"

_REASONS: Mapping[str, str] = {
    "BitCast": "it reads the bits of one kind of number as another's, of which programs have no way; cast the values",
    **dict.fromkeys(
        ["BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot"],
        "whole numbers of 64 bits, and programs have 32; use narrower ones",
    ),
    "ImageDecoder": "it decodes the bytes of a file; decode them before the model, and give it the pixels",
    "RoiAlign": "the number of its samples depends on the boxes, or the size of the image is free; give it a "
    "sampling_ratio, and fixed sizes with --shape",
    "DeformConv": "it is not over two dimensions, or sizes are free; give fixed sizes with --shape",
    "Dropout": "it is in training, of a shape that is free; give fixed sizes with --shape",
    "TfIdfVectorizer": "it counts words of text, or the number of tokens is free; give a fixed one with --shape",
    **dict.fromkeys(
        ["DFT", "STFT", "Col2Im", "MaxUnpool", "CumProd", "MelWeightMatrix"],
        "a size, an axis or a length of it is computed or free; fix it with --shape or --constant",
    ),
    **dict.fromkeys(
        ["SequenceAt", "SequenceInsert", "SequenceErase", "SequenceLength", "SequenceConstruct", "SequenceEmpty"],
        _SEQUENCE,
    ),
    **dict.fromkeys(["SplitToSequence", "ConcatFromSequence", "SequenceMap"], _SEQUENCE),
    **dict.fromkeys(["Optional", "OptionalGetElement", "OptionalHasElement"], "what it holds is no tensor"),
    **dict.fromkeys(
        ["StringConcat", "StringSplit", "StringNormalizer", "RegexFullMatch", "LabelEncoder", "CategoryMapper"], _TEXT
    ),
    **dict.fromkeys(["TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor"], _TREES),
    "Gradient": "it differentiates the model; write the gradient's operators out",
}


def why_left(node: NodeProto, runtime: str) -> str:
    """The reason, which a person can act on; `runtime` is whom the program is for: "Core ML"."""
    return _REASONS.get(node.op_type, f"there is no such operation in {runtime}, nor a way to make it of others")
