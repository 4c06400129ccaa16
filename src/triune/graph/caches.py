"""The names of the caches of exported decoders, as Optimum and onnxruntime-genai write them."""

import re
from typing import Final

from onnx import GraphProto

PAST: Final = re.compile(r"past_key_values\.(\d+)\.(key|value)")
"""The form of the name of an input with the keys or values of a layer's earlier tokens."""


def has_caches(graph: GraphProto) -> bool:
    """Whether a graph has the inputs of a decoder with caches."""
    return any(PAST.fullmatch(each.name) for each in graph.input)
