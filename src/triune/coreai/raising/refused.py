"""Operations that ONNX has nothing for, and why."""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Never

from triune.core.errors import UnsupportedError
from triune.coreai.raising.given import Given
from triune.coreai.raising.region import Raise
from triune.graph.raising.graph import Graph


def _refuse(reason: str, graph: Graph, given: Given) -> Never:
    del graph, given
    raise UnsupportedError(reason)


_REASONS = MappingProxyType(
    {
        "delegate": "it is compiled for one unit, and only that unit's runtime reads it; raise the asset it is made of",
        "image_to_tensor": "ONNX has no images; convert them to tensors outside the function",
        "metal4_kernel": "it is a kernel in Metal's own language, which runs on Apple's GPUs only",
        "tensor_to_image": "ONNX has no images; convert tensors to them outside the function",
    }
)

TABLE: Mapping[str, Raise] = MappingProxyType({name: partial(_refuse, reason) for name, reason in _REASONS.items()})
