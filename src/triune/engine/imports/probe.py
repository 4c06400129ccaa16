"""Computes the values of an exported decoder that depend only on sizes, masks and positions, for given sizes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from triune.core.errors import UnsupportedError
from triune.engine.imports.interface import Interface
from triune.graph.core_ops import OPSET
from triune.graph.index import label
from triune.graph.passes.fold import Fold
from triune.graph.passes.infer import Infer
from triune.graph.values import Values

_MAX_ROUNDS: Final = 16
_MOST_NODES: Final = 256
"""The most nodes that the attention of one layer may consist of."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of a step: sequences of one length, without padding.

    Attributes:
        batch: the number of sequences.
        new: the number of new tokens of each sequence.
        past: the number of earlier tokens of each sequence.
    """

    batch: int
    new: int
    past: int

    @property
    def total(self) -> int:
        """The number of earlier and new tokens of each sequence."""
        return self.past + self.new

    @property
    def positions(self) -> NDArray[np.int64]:
        """The positions of the new tokens, [new]."""
        return np.arange(self.past, self.total)


class Probe:
    """A decoder with fixed sizes, a mask without padding, and positions that count up. All values that follow from
    these are known.
    """

    def __init__(self, model: ModelProto, interface: Interface, sizes: Sizes) -> None:
        """Args:
        model: a result of `prepare`; not changed.
        interface: the model's inputs and outputs.
        sizes: the numbers of sequences and tokens for which values are computed.
        """
        self.sizes = sizes
        copy = ModelProto()
        copy.CopyFrom(model)
        _fix(copy.graph, interface, sizes)
        num_known = -1
        for _ in range(_MAX_ROUNDS):
            copy = Fold()(Infer()(copy))
            found = sum(node.op_type == "Constant" for node in copy.graph.node)
            if found == num_known:
                break
            num_known = found
        self._constants = {each.name: numpy_helper.to_array(each) for each in copy.graph.initializer}
        self._nodes: dict[str, NodeProto] = {}
        for node in copy.graph.node:
            if node.op_type == "Constant" and [each.name for each in node.attribute] == ["value"]:
                self._constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            else:
                self._nodes.update((name, node) for name in node.output if name)
        self._order = {id(node): at for at, node in enumerate(copy.graph.node)}
        self._values = Values(copy.graph)

    def known(self, name: str) -> NDArray[Any] | None:
        """The elements of a value that follows from sizes, mask and positions; None for any other."""
        return self._constants.get(name)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a value; None if it is not known."""
        return self._values.static_shape(name)

    def cast(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        """Convert an array to the element type of the value `name`."""
        return array.astype(helper.tensor_dtype_to_np_dtype(self._values.elem_type(name) or TensorProto.FLOAT))

    def between(self, output: str, given: Sequence[str]) -> Sequence[NodeProto]:
        """The nodes that compute `output` from the values `given`, in order.

        Raises:
            UnsupportedError: the output also depends on other values.
        """
        nodes: dict[int, NodeProto] = {}
        waiting = [output]
        while waiting:
            name = waiting.pop()
            if not name or name in given or name in self._constants:
                continue
            node = self._nodes.get(name)
            if node is None:
                raise UnsupportedError(f"it also reads '{name}'; expected are queries, keys, values and a mask")
            if id(node) not in nodes:
                nodes[id(node)] = node
                waiting += node.input
                if len(nodes) > _MOST_NODES:
                    raise UnsupportedError(
                        f"it also reads {label(node)}; expected are queries, keys, values and a mask"
                    )
        return sorted(nodes.values(), key=lambda node: self._order[id(node)])

    def compute(self, output: str, given: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Compute the value `output` from the values `given`, by name.

        Raises:
            UnsupportedError: it depends on other values than those given, or ONNX's evaluator cannot compute it.
        """
        nodes = self.between(output, list(given))
        read = {name for node in nodes for name in node.input if name in self._constants}
        feeds = {**{name: self._constants[name] for name in read}, **given}
        if output in feeds:
            return feeds[output]
        inputs = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(each.dtype), each.shape)
            for name, each in feeds.items()
        ]
        graph = helper.make_graph(nodes, "probe", inputs, [helper.make_empty_tensor_value_info(output)])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        try:
            with np.errstate(all="ignore"):
                evaluator: Any = ReferenceEvaluator(model)
                return np.asarray(evaluator.run(None, feeds)[0])
        except Exception as error:
            raise UnsupportedError(f"ONNX's evaluator cannot compute it: {' '.join(str(error).split())}") from error


def _fix(graph: GraphProto, interface: Interface, sizes: Sizes) -> None:
    """Set the sizes of the inputs, and make mask and positions constants."""
    given: dict[str, NDArray[Any]] = {}
    if interface.mask:
        given[interface.mask] = np.ones((sizes.batch, sizes.total), np.int64)
    if interface.positions:
        given[interface.positions] = np.tile(sizes.positions, (sizes.batch, 1))
    shapes = {interface.ids: (sizes.batch, sizes.new)}
    for past in interface.pasts:
        shape = sizes.batch, past.num_heads, sizes.past, past.head_size
        shapes |= {past.key: shape, past.value: shape}
    kept: list[ValueInfoProto] = []
    for value in graph.input:
        kind = value.type.tensor_type
        if value.name in given:
            array = given[value.name].astype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
            graph.initializer.append(numpy_helper.from_array(array, value.name))
            continue
        if value.name in shapes:
            value.CopyFrom(helper.make_tensor_value_info(value.name, kind.elem_type, shapes[value.name]))
        kept.append(ValueInfoProto.FromString(value.SerializeToString()))
    del graph.input[:]
    graph.input.extend(kept)
    # Drop declared shapes with free sizes, which are fixed now. Keep the last dimension of outputs of operators that
    # ONNX cannot infer.
    infos: list[ValueInfoProto] = []
    computed = {name for node in graph.node if node.domain not in ("", "ai.onnx") for name in node.output}
    for each in graph.value_info:
        kind = each.type.tensor_type
        if each.name in computed and len(kind.shape.dim) == 3:
            shape = sizes.batch, sizes.new, kind.shape.dim[2].dim_value
            infos.append(helper.make_tensor_value_info(each.name, kind.elem_type, shape))
    del graph.value_info[:]
    graph.value_info.extend(infos)
    for each in graph.output:
        kind = each.type.tensor_type.elem_type or TensorProto.FLOAT
        each.ClearField("type")
        each.type.tensor_type.elem_type = kind
