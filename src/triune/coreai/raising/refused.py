"""Operations that have no equivalent in ONNX, and the reasons."""

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


_FOREIGN = "its dialect is not one that programs are written in; save the program with Core AI's own operations"

_REASONS = MappingProxyType(
    {
        "builtin.unrealized_conversion_cast": _FOREIGN,
        "delegate": "it is compiled for one unit, and only that unit's runtime reads it; raise the asset it is made of",
        "metal4_kernel": "it is a kernel in Metal's own language, which runs on Apple's GPUs only",
        # No asset contains `reduce` or `reduce_index`: coreai-core 1.0.0b3 neither writes nor runs them, and so raising
        # them could not be verified.
        "reduce": "Core AI's library neither saves nor computes reductions by a block; write reduce_sum and the like",
        "reduce_index": "Core AI's library neither saves nor computes reductions by a block; write argmax",
        "udml.call": _FOREIGN,
        "udml.placeholder": _FOREIGN,
        "udml.to_memref": _FOREIGN,
    }
)

TABLE: Mapping[str, Raise] = MappingProxyType({name: partial(_refuse, reason) for name, reason in _REASONS.items()})
