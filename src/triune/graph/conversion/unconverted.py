"""Explain to the user why a node is still not a core op after normalization, and what to do about it."""

from collections.abc import Mapping
from typing import Any

import onnx.defs
from onnx import NodeProto

from triune.graph.conversion.problems import noted_why
from triune.graph.core_ops import OPSET
from triune.graph.decompose import OTHERS, STANDARD

_TEXT = "it works on text, but Core ML and Core AI programs have only numbers; do this before the model"
_OPTIONAL = "it makes or reads an optional value, but programs have only tensors of a known rank; give it the tensor"
_SEQUENCE = "the length of its sequence, or an index, is not constant; use tensors in its place, or fix their number"

_REASONS: Mapping[str, str] = {
    "BitCast": "it reinterprets bits as another type, which programs cannot do; cast the values",
    **dict.fromkeys(
        ["BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot"],
        "its integers have 64 bits, but programs have at most 32; use INT32 or smaller",
    ),
    "ImageDecoder": "it decodes the bytes of a file; decode them before the model, and give it the pixels",
    "RoiAlign": "the number of its samples depends on the boxes, or the size of the image is free; give it a "
    "sampling_ratio, and fixed sizes with --shape",
    "MaxRoiPool": "it has more than 64 bins along an axis, or the size of the image is free; give fixed sizes with "
    "--shape",
    "DeformConv": "it is not over two dimensions, or sizes are free; give fixed sizes with --shape",
    "Dropout": "it is in training mode, and its shape is not fixed; give fixed sizes with --shape",
    "TfIdfVectorizer": "it counts words of text, or the number of tokens is free; give a fixed one with --shape",
    **dict.fromkeys(
        ["DFT", "STFT", "Col2Im", "MaxUnpool", "CumProd", "MelWeightMatrix"],
        "a size, an axis or a length is not constant; fix it with --shape or --constant",
    ),
    **dict.fromkeys(
        ["SequenceAt", "SequenceInsert", "SequenceErase", "SequenceLength", "SequenceConstruct", "SequenceEmpty"],
        _SEQUENCE,
    ),
    **dict.fromkeys(["SplitToSequence", "ConcatFromSequence", "SequenceMap"], _SEQUENCE),
    **dict.fromkeys(["Optional", "OptionalGetElement", "OptionalHasElement"], _OPTIONAL),
    **dict.fromkeys(["StringConcat", "StringSplit", "StringNormalizer", "RegexFullMatch"], _TEXT),
    "Gradient": "it differentiates the model; write the gradient's operators out",
}


_LAYOUTS = ("com.microsoft.nchwc", "com.ms.internal.nhwc")

# `Any`, since onnx's type stubs lack most attributes of a schema.
_schemas: Any = onnx.defs


def why_unconverted(node: NodeProto, runtime: str) -> str:
    """The reason why a node cannot be converted, and the remedy. `runtime` is the target's name: "Core ML"."""
    noted = noted_why(node)
    if noted is not None:
        return noted
    domain = "" if node.domain == "ai.onnx" else node.domain
    if domain in ("", "ai.onnx.ml") and node.op_type in _REASONS:
        return _REASONS[node.op_type]
    if domain in _LAYOUTS:
        return (
            "it has a layout of ONNX Runtime's own; save the model with a lower optimization level: "
            "ORT_ENABLE_EXTENDED or less"
        )
    if node.op_type in (OTHERS.get(domain, {}) if domain else STANDARD) or _has_body(domain, node.op_type):
        return "a type or shape that it depends on is not known; give fixed sizes with --shape"
    if domain:
        return (
            f"what it computes is not known here; export the model without operators of '{domain}', save it with a "
            "lower optimization level, or define the operator in standard operators: as a function of the model, or by "
            "custom_op(..., body=...) (--custom-ops)"
        )
    return f"there is no such operation in {runtime}, nor a way to make it of others"


def _has_body(domain: str, name: str) -> bool:
    """Whether ONNX has a function body for the operator."""
    if domain or not _schemas.has(name, OPSET, ""):
        return False
    schema = _schemas.get_schema(name, OPSET, "")
    return schema.has_function or schema.has_context_dependent_function
