"""Find out how large a constant ONNX Runtime may make of a model's constants when it loads the model.

Its optimizer computes every node whose inputs are constants, up to 1 GiB for each output. A file of some hundred bytes,
such as a Range from 0 to 1e9, would then take gigabytes for as long as the model is loaded.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from onnx import FunctionProto, ModelProto, NodeProto

from triune.graph.all_tensors import tensors_of
from triune.graph.values import subgraphs_of

FOLDED_BYTES = "optimization.constant_folding_max_output_size_in_bytes"
"""The option of ONNX Runtime (1.32) with the size of the largest constant that it makes."""

_MOST_BYTES = 256 << 20
"""The bytes that all constants that nodes of `_GROWS` make may take together. A causal mask of 4096 tokens in fp32
takes 64 MiB.
"""

_ELEMENT_BYTES = 8
"""The largest size of an element. A constant of as many elements as the model's largest tensor may be made in any case,
such as by a Cast of that tensor.
"""

_GROWS = frozenset(
    {
        *("AffineGrid", "CenterCropPad", "Col2Im", "ConstantOfShape", "Expand", "EyeLike", "MaxUnpool"),
        *("MelWeightMatrix", "OneHot", "Pad", "RandomNormal", "RandomUniform", "Range", "Resize", "Tile", "Upsample"),
        *("BlackmanWindow", "HammingWindow", "HannWindow"),
    }
)
"""Operators whose results have a size that the values of an input or attribute decide."""

_Key = tuple[str, str, str]


def most_folded_bytes(model: ModelProto) -> int:
    """The most bytes that a constant may take that ONNX Runtime computes from other constants when it loads a model. It
    computes larger values in each run, within the memory limit of a run.

    Args:
        model: the model; the data of its tensors is not read.
    """
    largest = max((_ELEMENT_BYTES * math.prod(tensor.dims) for tensor in tensors_of(model)), default=0)
    sources = _Sources({(each.domain, each.name, each.overload): each for each in model.functions})
    constants = {tensor.name for tensor in model.graph.initializer}
    num_sources = sources.count(model.graph.node, constants)
    return max(_MOST_BYTES // max(1, num_sources), largest)


@dataclass(slots=True)
class _Sources:
    """Counts the nodes that make a large constant of small ones."""

    functions: dict[_Key, FunctionProto]
    _counts: dict[_Key, int] = field(default_factory=dict[_Key, int])

    def count(self, nodes: Iterable[NodeProto], constants: set[str]) -> int:
        """Count the nodes that make a large constant of small ones, among `nodes` and in their subgraphs. The names of
        results that are constants are added to `constants`, which has those of the initializers.
        """
        num = 0
        for node in nodes:
            is_constant = all(name in constants for name in node.input if name)
            key = (node.domain, node.op_type, node.overload)
            if key in self.functions:
                num += self._of_function(key)
            else:
                num += is_constant and node.op_type in _GROWS
            for graph in subgraphs_of(node):
                is_constant = False
                num += self.count(graph.node, constants | {tensor.name for tensor in graph.initializer})
            if is_constant:
                constants.update(filter(None, node.output))
        return num

    def _of_function(self, key: _Key) -> int:
        """Count the nodes that make a large constant of small ones in the body of a function, as if all inputs of the
        call were constants.
        """
        if key not in self._counts:
            # A function that calls itself is invalid, which the runtime reports; this entry ends the recursion.
            self._counts[key] = 0
            function = self.functions[key]
            self._counts[key] = self.count(function.node, set(function.input))
        return self._counts[key]
