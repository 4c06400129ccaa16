"""Run a model in which numpy computes the custom operators: the graph is cut at them, and a runtime computes the pieces
in between.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from triune.core.errors import InternalError, InvalidArgumentError
from triune.graph.custom.collection import CustomOps
from triune.graph.custom.op import CustomOp
from triune.graph.index import label
from triune.graph.passes.infer import Infer
from triune.graph.shadows import rename_shadows
from triune.graph.split import Piece, constant_nodes, split
from triune.graph.values import Values, attributes_of
from triune.graph.weight_files import array_of

Array = NDArray[Any]


class NumpyFunctionError(Exception):
    """The numpy function of a custom operator raised an exception, which is the cause of this one."""


class RunPiece(Protocol):
    """Computes the outputs of a piece that is not a custom operator."""

    def __call__(self, inputs: Mapping[str, Array], /) -> Mapping[str, Array]:
        """Compute the piece's outputs from its inputs, both by name."""
        ...


@dataclass(frozen=True, slots=True)
class CustomNode:
    """A node of a custom operator that numpy computes.

    Attributes:
        node: the node.
        op: its operator.
        attributes: the attributes that the numpy function gets.
        types: the element type of each output, by name.
        weights: its inputs that are initializers, by name.
    """

    node: NodeProto
    op: CustomOp
    attributes: Mapping[str, Any]
    types: Mapping[str, np.dtype[Any]]
    weights: Mapping[str, Array]

    def inputs(self, values: Mapping[str, Array]) -> list[Array | None]:
        """The node's inputs in order, out of all values so far; None for one that is left out."""
        return [(values[name] if name in values else self.weights[name]) if name else None for name in self.node.input]

    def run(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the node's outputs, as arrays of their own.

        Raises:
            InternalError: the function gives fewer results, or results of another type, than the operator states.
            NumpyFunctionError: the function raised an exception.
        """
        inputs = self.inputs(values)
        try:
            results = self.op.run(inputs, self.attributes)
        except Exception as error:
            raise NumpyFunctionError(
                f"custom operator '{self.op}' at {label(self.node)} failed: {type(error).__name__}: {error}"
            ) from error
        if len(results) < len(self.node.output):
            raise InternalError(
                f"custom operator '{self.op}' gave {len(results)} results; {label(self.node)} has "
                f"{len(self.node.output)} outputs"
            )
        found: dict[str, Array] = {}
        for name, result in zip(self.node.output, results, strict=False):
            if not name:
                continue
            if result.dtype != self.types[name]:
                raise InternalError(
                    f"custom operator '{self.op}' gave {result.dtype} for output '{name}' of {label(self.node)}; it is "
                    f"stated to be {self.types[name]}: convert the result, or state its type with "
                    "custom_op(..., outputs=[...])"
                )
            # Copy results that are views: the function may return or keep a reference to its inputs, and change them
            # later.
            found[name] = np.array(result, order="C") if result.base is not None else np.ascontiguousarray(result)
        return found


@dataclass(frozen=True, slots=True)
class Stage:
    """A step of a run: a custom node, or a piece of the graph.

    Attributes:
        custom: the custom node; None for a piece.
        run: computes the piece.
        inputs, outputs: the names of what the piece reads and gives.
    """

    custom: CustomNode | None
    run: RunPiece | None = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


class Stages:
    """A model that runs in stages (`Stage`), one after the other: custom operators in numpy, and the pieces between
    them in a runtime.
    """

    def __init__(
        self,
        model: ModelProto,
        ops: CustomOps,
        at: Collection[int],
        compile_piece: Callable[[Piece], RunPiece],
    ) -> None:
        """Cut a model before and after custom nodes.

        Args:
            model: a result of `graph.load.load`; it is not changed.
            ops: the custom operators.
            at: the positions of the custom nodes that numpy computes.
            compile_piece: compiles a piece.

        Raises:
            InvalidArgumentError: a node does not fit its numpy function.
            UnsupportedError: a value that passes a cut is not a tensor of known type.
            TriuneError: as `compile_piece` does.
        """
        typed, found = typed_model(model, ops, at)
        wanted = sorted(at)
        borders = sorted({each for one in wanted for each in (one, one + 1)} - {0, len(typed.graph.node)})
        self.stages: list[Stage] = []
        for piece in split(typed, borders, apart=[*wanted, *_constants_read(typed, wanted)]):
            custom = found.get(piece.nodes[0]) if piece.nodes else None
            if custom is not None:
                self.stages.append(Stage(custom))
            else:
                self.stages.append(Stage(None, compile_piece(piece), piece.inputs, piece.outputs))

    def run(
        self,
        inputs: Mapping[str, Array],
        outputs: Sequence[str],
        watch: Callable[[CustomNode, Mapping[str, Array], Mapping[str, Array]], None] | None = None,
    ) -> dict[str, Array]:
        """Compute the outputs.

        Args:
            inputs: the model's inputs by name.
            outputs: the names of the outputs.
            watch: called with each custom node, all values before it, and its results.

        Raises:
            NumpyFunctionError: a numpy function raised an exception.
            InternalError: the results of one are not those that its operator states.
            TriuneError: the runtime that computes the nodes between custom nodes raised it.
        """
        values: dict[str, Array] = dict(inputs)
        for stage in self.stages:
            if stage.custom is not None:
                results = stage.custom.run(values)
                if watch is not None:
                    watch(stage.custom, values, results)
                values.update(results)
            else:
                assert stage.run is not None
                values.update(stage.run({name: values[name] for name in stage.inputs if name in values}))
        return {name: values[name] for name in outputs}


def typed_model(model: ModelProto, ops: CustomOps, at: Collection[int]) -> tuple[ModelProto, Mapping[int, CustomNode]]:
    """A copy of a model in which all values have types, and its custom nodes by their positions.

    Raises:
        InvalidArgumentError: a node does not fit its numpy function, or the model's types do not fit together.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    rename_shadows(copy.graph)
    weights = {tensor.name: tensor for tensor in copy.graph.initializer}
    found: dict[int, CustomNode] = {}
    for position in sorted(at):
        # Infer types again for each custom node: those after a custom node follow from the types of its outputs.
        copy = Infer()(copy)
        node = copy.graph.node[position]
        op = ops.ops[node.domain, node.op_type]
        types = _types_of(node, op, Values(copy.graph))
        known = {info.name: info for info in (*copy.graph.value_info, *copy.graph.output)}
        for name, dtype in types.items():
            if name in known and known[name].type.tensor_type.elem_type:
                continue
            info = ValueInfoProto(name=name)
            info.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(dtype)
            if name in known:
                known[name].type.CopyFrom(info.type)
            else:
                copy.graph.value_info.append(info)
        arrays = {name: array_of(weights[name]) for name in node.input if name in weights}
        found[position] = CustomNode(node, op, _attributes(node, op), types, arrays)
    return Infer()(copy), found


def _constants_read(model: ModelProto, at: Collection[int]) -> list[int]:
    """The positions of the nodes that compute constant inputs of the custom nodes `at`. They are compiled as a piece of
    their own.
    """
    constant = constant_nodes(model.graph, at)
    read = {name for position in at for name in model.graph.node[position].input}
    return [position for position in constant if read.intersection(model.graph.node[position].output)]


def _types_of(node: NodeProto, op: CustomOp, values: Values) -> dict[str, np.dtype[Any]]:
    """The element type of each output of a node, by name."""
    names = _checked_inputs(node, op)
    stated = op.outputs or tuple(names[:1]) * len(node.output)
    if len(stated) < len(node.output):
        raise InvalidArgumentError(
            f"{label(node)} has {len(node.output)} outputs, and custom operator '{op}' states the types of "
            f"{len(stated)}; state all with custom_op(..., outputs=[...])"
        )
    given = dict(zip(names, node.input, strict=False))
    types: dict[str, np.dtype[Any]] = {}
    for name, kind in zip(node.output, stated, strict=False):
        if isinstance(kind, str):
            source = given.get(kind, "")
            elem_type = values.elem_type(source) if source else TensorProto.UNDEFINED
            if not elem_type:
                raise InvalidArgumentError(
                    f"output '{name}' of {label(node)} has the type of input '{kind}', which is not known; state it "
                    "with custom_op(..., outputs=[np.float32])"
                )
            kind = helper.tensor_dtype_to_np_dtype(elem_type)
        if name:
            types[name] = kind
    return types


def _checked_inputs(node: NodeProto, op: CustomOp) -> list[str]:
    """The names of the numpy function's positional parameters. Raises InvalidArgumentError if it cannot take as many
    inputs as the node has.
    """
    inputs, _ = op.parameters()
    is_open = any(each.kind is Parameter.VAR_POSITIONAL for each in inputs)
    positional = [each for each in inputs if each.kind is not Parameter.VAR_POSITIONAL]
    given = [bool(name) for name in node.input]
    is_missing = any(
        each.default is Parameter.empty and not any(given[place : place + 1]) for place, each in enumerate(positional)
    )
    if is_missing or (len(given) > len(positional) and not is_open):
        raise InvalidArgumentError(
            f"{label(node)} has {len(given)} inputs; the numpy function of custom operator '{op}' takes "
            f"{', '.join(each.name for each in inputs)}"
        )
    return [each.name for each in positional]


def _attributes(node: NodeProto, op: CustomOp) -> dict[str, Any]:
    """The attributes of a node, as the numpy function gets them. Tensors are arrays."""
    known = {each.name: each.default for each in op.parameters()[1]}
    given: dict[str, Any] = dict(attributes_of(node))
    if unknown := [name for name in given if name not in known]:
        raise InvalidArgumentError(
            f"{label(node)} has the attribute '{unknown[0]}'; the numpy function of custom operator '{op}' takes "
            f"{', '.join(known) or 'none'}: write attributes as keyword-only parameters, after a '*'"
        )
    if missing := [name for name, default in known.items() if default is Parameter.empty and name not in given]:
        raise InvalidArgumentError(
            f"{label(node)} lacks the attribute '{missing[0]}', for which the numpy function of custom operator '{op}' "
            "has no default"
        )
    return {
        name: numpy_helper.to_array(each) if isinstance(each, TensorProto) else each for name, each in given.items()
    }
