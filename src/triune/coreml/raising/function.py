"""Raise a function of an ML Program to an ONNX model that computes the same.

Inputs and outputs keep their names, shapes and element types; fp16 stays fp16. A state `NAME` becomes an input `NAME`
and an output `NAME/new`, its value after the call. The dictionary that a classifier returns becomes the vector of its
probabilities, in the order of the classes; `class_labels` returns these.
"""

from onnx import ModelProto, ValueInfoProto, helper

from triune.core.errors import InvalidArgumentError, UnsupportedError, reworded
from triune.coreml.mil import DictionaryType, DType, Function, Output, Program, StateType, TensorType
from triune.coreml.package import Package
from triune.coreml.raising.block import BlockRaiser
from triune.coreml.raising.table import FAMILIES
from triune.coreml.read_program import find_function
from triune.graph.fatal_fusions import without_fatal_fusions
from triune.graph.raising.graph import Graph, Root, Tensor, value_info
from triune.graph.state_names import new_state

OPSET = 21
_IR_VERSION = 10


def raise_function(source: Package | Program, name: str | None = None, *, keep_quantized: bool = False) -> ModelProto:
    """Raise a function of an ML Program to an ONNX model.

    Args:
        source: the package, or its program.
        name: the name of the function; None takes the default function ("main" of a program).
        keep_quantized: whether large quantized weights stay quantized, with DequantizeLinear, if ONNX can express them.
            The model is then smaller, but may be slower.

    Raises:
        NotFoundError: there is no such function.
        InvalidArgumentError: an operation is malformed.
        UnsupportedError: operations have no equivalent in ONNX. The message lists all operations whose types are not
            known.
    """
    if isinstance(source, Package):
        function, file = source.function(name), source.name
    else:
        file = "program"
        function = find_function(source, name or "main", file)
    missing = sorted(FAMILIES.missing(function.block))
    if missing:
        raise UnsupportedError(f"'{file}', function '{function.name}': no such operations: {', '.join(missing)}")
    try:
        return _raise(function, keep_quantized)
    except (InvalidArgumentError, UnsupportedError) as error:
        raise reworded(error, f"'{file}', function '{function.name}', {error}") from error


def _raise(function: Function, keep_quantized: bool) -> ModelProto:
    states = [each for each in function.inputs if isinstance(each.type, StateType)]
    names = [each.name for each in function.inputs]
    reserved = [*names, *function.block.outputs, *(new_state(each.name) for each in states)]
    root = Root(reserved, keep_quantized=keep_quantized)
    graph = Graph(root)
    inputs = [value_info(each.name, _tensor_type(each)) for each in function.inputs]
    given = {each.name: _input(each) for each in function.inputs}
    current = {each.name: given[each.name] for each in states}
    raiser = BlockRaiser(graph, given, current, function.opset, FAMILIES, is_outermost=True)
    results = raiser.block(function.block)
    declared = _declared(function)
    outputs: list[ValueInfoProto] = []
    for name, result in zip(function.block.outputs, results, strict=True):
        outputs.append(value_info(name, declared.get(name) or TensorType(result.dtype, result.shape)))
        _deliver(graph, result, name)
    for state in states:
        outputs.append(value_info(new_state(state.name), _tensor_type(state)))
        _deliver(graph, raiser.states[state.name], new_state(state.name))
    graph.nodes[:0] = root.nodes
    proto = graph.proto(function.name, inputs, outputs)
    proto.initializer.extend(root.initializers)
    model = helper.make_model(
        proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION, producer_name="triune"
    )
    model.doc_string = f"Raised from an ML Program, {function.opset}"
    without_fatal_fusions(model)
    return model


def _deliver(graph: Graph, result: Tensor, name: str) -> None:
    """Make `result` the output `name` of the graph."""
    if result.name != name or result.constant is not None:
        graph.prefix = name
        graph.put("Identity", [result], name)


def _input(value: Output) -> Tensor:
    kind = _tensor_type(value)
    return Tensor(value.name, kind.dtype, kind.shape)


def _tensor_type(value: Output) -> TensorType:
    kind = value.type.wrapped if isinstance(value.type, StateType) else value.type
    if not isinstance(kind, TensorType):
        raise UnsupportedError(f"input '{value.name}' is neither a tensor nor a state")
    return kind


def _declared(function: Function) -> dict[str, TensorType]:
    """The declared types of a function's inputs and of all values that its operations compute, by name."""
    outputs = [output for operation in function.block.operations for output in operation.outputs]
    found: dict[str, TensorType] = {}
    for output in (*function.inputs, *outputs):
        if isinstance(output.type, TensorType):
            found[output.name] = output.type
        elif isinstance(output.type, DictionaryType):
            found[output.name] = TensorType(DType.FP32, None)
    return found
