"""Find out how much memory the values take that a runtime computes from a model's constants when it loads the model.

ONNX Runtime computes every node whose inputs are constants, up to 1 GiB for each result, and OpenVINO without a limit.
A file of some hundred bytes, such as a Range from 0 to 1e9, would then take gigabytes for as long as the model is
loaded.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from onnx import FunctionProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from triune.core.errors import UnsupportedError
from triune.graph.all_tensors import tensors_of
from triune.graph.folding_limit import GROWS, REMEDY, folding_limit, result_bytes
from triune.graph.inference_apart import try_infer_shapes
from triune.graph.passes.fold import Fold
from triune.graph.values import Values, constant_tensor, subgraphs_of
from triune.graph.weight_files import num_bytes

FOLDED_BYTES = "optimization.constant_folding_max_output_size_in_bytes"
"""The option of ONNX Runtime (1.32) that limits the size of a constant into which it folds a node."""

_SMALL_BYTES = 1 << 10
"""Constants of at most this number of bytes are read, since other values may take their shapes or limits from them."""

_SMALL_ELEMENTS = 1 << 7
"""Results of at most this number of elements are computed here, since other values may take their shapes or limits from
them.
"""

_STANDARD = ("", "ai.onnx")
_OF_SHAPES = ("Shape", "Size")
_Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Folded:
    """The values that follow from a model's constants alone.

    Attributes:
        sizes: the bytes of each value whose shape is known.
        num_unknown: how many nodes may make a large value whose size is not known.
        limit_bytes: the most bytes that all values may take together (`folding_limit`).
    """

    sizes: tuple[int, ...]
    num_unknown: int
    limit_bytes: int

    @property
    def most_bytes(self) -> int:
        """The size limit, in bytes, of one value: if only values up to this size are computed, all of them together
        keep to `limit_bytes`.
        """
        left, num = self.limit_bytes, max(1, self.num_unknown)
        for size in sorted(self.sizes):
            if left - size < self.num_unknown * size:
                return min(left // num, size - 1)
            left -= size
        return left // num

    @property
    def leaves_some(self) -> bool:
        """Whether a value is larger than `most_bytes`. Such a value is not computed when the model is loaded; each run
        computes it, and needs memory for it.
        """
        return any(size > self.most_bytes for size in self.sizes)

    def require(self, runtime: str) -> None:
        """Check that the values keep to the limit, for a runtime that computes all of them when it loads a model.

        Raises:
            UnsupportedError: the values whose sizes are known take too many bytes.
        """
        if (total := sum(self.sizes)) > self.limit_bytes:
            raise UnsupportedError(
                f"values that follow from the model's constants alone take {total} bytes, and {runtime} computes them "
                f"when it loads the model; {self.limit_bytes} are the most: serve the model with backend "
                f"'onnxruntime', which computes them in each run, or {REMEDY}"
            )


def folded_of(model: ModelProto) -> Folded:
    """Find the values that a runtime may compute from constants when it loads a model.

    Args:
        model: the model, which is not changed. The data of large tensors is not read.

    Raises:
        InvalidArgumentError: $TRIUNE_FOLDED_BYTES is not a number of bytes.
    """
    limit = folding_limit(tensors_of(model))
    functions = {(each.domain, each.name, each.overload): each for each in model.functions}
    constants = {tensor.name for tensor in model.graph.initializer}
    given = Values(model.graph)
    found = _Constant(functions, given)
    num_within = found.look(model.graph.node, constants)
    sizes, num_unknown = _sizes(found.nodes, given, model)
    return Folded(tuple(sizes), num_unknown + num_within, limit)


@dataclass(slots=True)
class _Constant:
    """Finds nodes whose inputs are constants.

    Attributes:
        nodes: the nodes of the main graph whose inputs are constants, except those that call functions or have
            subgraphs.
    """

    functions: dict[_Key, FunctionProto]
    given: Values
    nodes: list[NodeProto] = field(default_factory=list[NodeProto])
    _counts: dict[_Key, int] = field(default_factory=dict[_Key, int])

    def look(self, nodes: Iterable[NodeProto], constants: set[str]) -> int:
        """Find the nodes whose inputs are constants among `nodes`, those of the main graph; add them to `self.nodes`.

        The names of their results are added to `constants`, which has the names of the initializers. Returns how many
        nodes of subgraphs and functions may make a large constant of small ones.
        """
        num = 0
        for node in nodes:
            is_constant = self._is_constant(node, constants)
            inner = self._count_within(node, constants)
            if inner is not None:
                num += inner
                is_constant = is_constant and self._key(node) in self.functions
            elif is_constant:
                self.nodes.append(node)
            if is_constant:
                constants.update(filter(None, node.output))
        return num

    def _key(self, node: NodeProto) -> _Key:
        return node.domain, node.op_type, node.overload

    def _is_constant(self, node: NodeProto, constants: set[str]) -> bool:
        if node.op_type in _OF_SHAPES and node.domain in _STANDARD and node.input:
            return node.input[0] in constants or self.given.static_shape(node.input[0]) is not None
        return all(name in constants for name in node.input if name)

    def _count_within(self, node: NodeProto, constants: set[str]) -> int | None:
        """Count the nodes that may make a large constant in a node's function or subgraphs; None if the node has
        neither.
        """
        if (key := self._key(node)) in self.functions:
            return self._of_function(key)
        counts = [
            self._count(graph.node, constants | {tensor.name for tensor in graph.initializer})
            for graph in subgraphs_of(node)
        ]
        return sum(counts) if counts else None

    def _count(self, nodes: Iterable[NodeProto], constants: set[str]) -> int:
        num = 0
        for node in nodes:
            is_constant = self._is_constant(node, constants)
            inner = self._count_within(node, constants)
            num += inner if inner is not None else is_constant and node.op_type in GROWS
            is_constant = is_constant and (inner is None or self._key(node) in self.functions)
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
            self._counts[key] = self._count(function.node, set(function.input))
        return self._counts[key]


def _sizes(nodes: list[NodeProto], given: Values, model: ModelProto) -> tuple[list[int], int]:
    """The sizes of the results of nodes whose inputs are constants, in bytes, and the number of nodes whose results
    may be large and have no known size.
    """
    made = [node for node in nodes if node.op_type != "Constant" or constant_tensor(node) is None]
    if not made:
        return [], 0
    inferred = _inferred(made, given, model)
    sizes: list[int] = []
    num_unknown = 0
    for node in made:
        names = [name for name in node.output if name]
        if inferred is None or any(inferred.static_shape(name) is None for name in names):
            num_unknown += node.op_type in GROWS or node.domain not in _STANDARD
            continue
        sizes += [result_bytes(name, inferred) for name in names]
    return sizes, num_unknown


def _inferred(nodes: list[NodeProto], given: Values, model: ModelProto) -> Values | None:
    """Infer the shapes of the results of nodes whose inputs are constants; None if inference fails."""
    tensors: list[TensorProto] = []
    inputs: list[ValueInfoProto] = []
    computed = {name for node in nodes for name in node.output}
    for name in dict.fromkeys(name for node in nodes for name in node.input if name and name not in computed):
        tensor, kind = given.tensor(name), given.type(name)
        is_external = tensor is not None and tensor.data_location == TensorProto.EXTERNAL
        if tensor is not None and not is_external and num_bytes(tensor) <= _SMALL_BYTES:
            small = TensorProto()
            small.CopyFrom(tensor)
            small.name = name
            tensors.append(small)
        elif kind is not None:
            inputs.append(helper.make_value_info(name, kind))
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    # Make every result an output of the graph, so that `Fold` keeps it, whichever nodes read it.
    outputs = [helper.make_empty_tensor_value_info(name) for node in nodes for name in node.output if name]
    graph = helper.make_graph(copies, "constants", inputs, outputs, tensors)
    light = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    opset = next((each.version for each in model.opset_import if each.domain in _STANDARD), 1)
    inferred = try_infer_shapes(light)
    if inferred is None:
        return None
    # `Fold` computes the small constants from which later shapes follow. The option `data_prop` of ONNX's inference
    # would also compute long vectors.
    folded = try_infer_shapes(Fold(opset, most_elements=_SMALL_ELEMENTS)(inferred))
    return None if folded is None else Values(folded.graph)
