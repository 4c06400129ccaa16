"""Raise a function of a Core AI program to an equivalent ONNX model.

Inputs and outputs keep their names, shapes and element types. A state `NAME` becomes an input `NAME` and an output
`NAME/new`, its value after the call. An output with the name of an input becomes `NAME/output`. Types that no runtime
supports become wider ones (`types`), complex numbers have a last axis of size 2 for both parts, and images become their
bytes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onnx import ModelProto, NodeProto, ValueInfoProto, helper

from triune.core.errors import InvalidArgumentError, UnsupportedError, reworded
from triune.coreai.description import describe
from triune.coreai.library import dialect
from triune.coreai.program import (
    argument_names,
    find_function,
    functions_of,
    graphs_of,
    is_token,
    load_program,
    mlir_module,
    result_names,
    results_of,
)
from triune.coreai.raising.complex_numbers import from_pairs, to_pairs
from triune.coreai.raising.constants import Constants
from triune.coreai.raising.control_flow import CONTROL_FLOW
from triune.coreai.raising.region import LostError, Program, RegionRaiser
from triune.coreai.raising.table import TABLE
from triune.coreai.raising.types import is_complex, tensor_type
from triune.coreai.raising.values import Complex, Held, State
from triune.graph.fatal_fusions import without_fatal_fusions
from triune.graph.passes.hard_swish import HardSwish
from triune.graph.passes.tidy import Tidy
from triune.graph.raising.graph import Graph, Root, Tensor, value_info
from triune.graph.raising.subgraphs import rename
from triune.graph.raising.types import TensorType
from triune.graph.state_names import new_state
from triune.graph.values import nodes_within

OPSET = 21
_IR_VERSION = 10


def raise_function(source: Any, name: str | None = None, *, keep_quantized: bool = False) -> ModelProto:
    """Raise a function of a Core AI program to an ONNX model.

    Args:
        source: the path of an .aimodel, or a `coreai.authoring.AIProgram`.
        name: the name of the function; None takes "main", or the only one.
        keep_quantized: whether large weights stay quantized, with DequantizeLinear, if ONNX can express them. The model
            is then smaller, and may be slower.

    Raises:
        NotFoundError: there is no such file or function.
        InvalidArgumentError: the file or an operation is broken.
        UnavailableError: reading the file took too long.
        UnsupportedError: operations have no equivalent in ONNX. The message lists all of them with the reasons.
    """
    file, program = "program", source
    if isinstance(source, (str, Path)):
        file, path = Path(source).name, Path(source)
        # Let a child process read the file first, so that a missing function is reported without loading the program
        # here.
        name = find_function([each.name for each in describe(path).functions], name, file)
        program = load_program(path)
    graphs = graphs_of(program)
    functions = functions_of(graphs)
    function = functions[find_function(list(functions), name, file)]
    try:
        return _raise(function, graphs, Constants(mlir_module(program)), keep_quantized)
    except (InvalidArgumentError, UnsupportedError) as error:
        raise reworded(error, f"'{file}', function '{function.symbol_name}': {error}") from error


def load(path: Path) -> Any:
    """Load the program of an asset for `raise_function`, after a child process has checked that it can be read.

    Raises:
        NotFoundError: there is no such asset.
        InvalidArgumentError: the asset is broken.
        UnsupportedError: the asset has a format of another version.
        UnavailableError: reading the asset took too long.
    """
    describe(path)
    return load_program(path)


def function_names(program: Any) -> list[str]:
    """The functions that can be called from outside."""
    return list(functions_of(graphs_of(program)))


def _raise(function: Any, graphs: Mapping[str, Any], constants: Constants, keep_quantized: bool) -> ModelProto:
    block = function.regions[0].blocks[0]
    arguments = list(block.arguments)
    names = _named(argument_names(function), "input")
    results = results_of(function)
    places = [place for place, value in enumerate(results) if not is_token(value)]
    given_names = result_names(function)
    called = _named([given_names[place] for place in places], "output")
    states = [name for name, value in zip(names, arguments, strict=True) if dialect.HandleType.isinstance(value.type)]
    _check_names(names, "inputs")
    _check_names(called, "outputs")
    nexts = [new_state(name) for name in states]
    outputs = [*_output_names(called, names, nexts), *nexts]
    _check_names(outputs, "outputs, the next values of states among them,")

    root = Root([*names, *outputs], keep_quantized=keep_quantized)
    graph = Graph(root)
    inputs: list[ValueInfoProto] = []
    values: dict[Any, Held] = {}
    current: dict[str, Tensor] = {}
    for name, argument in zip(names, arguments, strict=True):
        kind = _graph_type(argument.type, f"input '{name}'")
        inputs.append(value_info(name, kind))
        tensor = Tensor(name, kind.dtype, kind.shape)
        values[argument] = State(name) if name in states else tensor
        if is_complex(argument.type):
            graph.prefix = name
            values[argument] = from_pairs(graph, tensor)
        if name in states:
            current[name] = tensor
    program = Program(constants, graphs, TABLE, CONTROL_FLOW)
    raiser = RegionRaiser(program, graph, values, current)
    held = _body(raiser, block, program)
    given = [*(held[place] for place in places), *(raiser.states[name] for name in states)]
    given = [to_pairs(graph, each) if isinstance(each, Complex) else each for each in given]
    kinds = [_graph_type(results[place].type, f"output '{name}'") for place, name in zip(places, called, strict=True)]
    kinds += [
        _graph_type(argument.type, "state") for argument in arguments if dialect.HandleType.isinstance(argument.type)
    ]
    _deliver(graph, given, outputs, names)
    graph.nodes[:0] = root.nodes
    graph.nodes[:] = _used(graph.nodes, outputs)
    proto = graph.proto(
        function.symbol_name, inputs, [value_info(name, kind) for name, kind in zip(outputs, kinds, strict=True)]
    )
    read = {name for node in nodes_within(graph.nodes) for name in node.input}
    proto.initializer.extend(tensor for tensor in root.initializers if tensor.name in read)
    model = helper.make_model(
        proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION, producer_name="triune"
    )
    model.doc_string = "Raised from a Core AI program"
    model = Tidy()(HardSwish()(model))
    without_fatal_fusions(model)
    return model


def _body(raiser: RegionRaiser, block: Any, program: Program) -> list[Held]:
    """Raise the body of the function, and return its results. All problems in `program` become one error."""
    held: list[Held] = []
    try:
        held = raiser.block(block)
    except LostError:
        if not program.problems and not program.malformed:
            raise
    if program.malformed:
        raise InvalidArgumentError("; ".join([*program.malformed, *program.problems]))
    if program.problems:
        raise UnsupportedError("; ".join(program.problems))
    return held


def _named(names: Sequence[str], role: str) -> list[str]:
    for place, name in enumerate(names):
        if not name:
            raise UnsupportedError(
                f"{role} {place} has no name, and Core AI cannot call the function; name it in its TensorSpec"
            )
    return list(names)


def _check_names(names: Sequence[str], role: str) -> None:
    for name in names:
        if list(names).count(name) > 1:
            raise InvalidArgumentError(f"two {role} are called '{name}'")


def _output_names(called: Sequence[str], inputs: Sequence[str], nexts: Sequence[str]) -> list[str]:
    """The names of the graph's outputs: those of `called`; where an input has the same name, a new name that ends in
    "/output".
    """
    # A new name must differ from all of these names, even from the ones that are replaced.
    root = Root([*called, *inputs, *nexts])
    return [root.fresh(f"{name}/output") if name in inputs else name for name in called]


def _graph_type(kind: Any, what: str) -> TensorType:
    """The type of an input, output or state in the graph. Raises UnsupportedError if no request can carry it."""
    try:
        passed = tensor_type(kind)
    except UnsupportedError as error:
        raise UnsupportedError(f"{what} is {error}") from error
    return TensorType(passed.dtype, (*(passed.shape or ()), 2)) if is_complex(kind) else passed


def _deliver(graph: Graph, results: Sequence[Held], names: Sequence[str], inputs: Sequence[str]) -> None:
    """Make the results the outputs of the graph: rename a node's output, or add an Identity if that is not possible."""
    made = {name for node in graph.nodes for name in node.output} - set(inputs)
    new: dict[str, str] = {}
    rest: list[tuple[Tensor, str]] = []
    for result, name in zip(results, names, strict=True):
        if not isinstance(result, Tensor):
            raise UnsupportedError(f"output '{name}' is {type(result).__name__}, which no request can carry")
        if result.name in made and result.name not in new and result.constant is None:
            new[result.name] = name
        else:
            rest.append((result, name))
    rename(graph.nodes, new)
    for result, name in rest:
        graph.prefix = name
        graph.put(
            "Identity", [Tensor(new.get(result.name, result.name), result.dtype, result.shape, result.constant)], name
        )


def _used(nodes: Sequence[NodeProto], outputs: Sequence[str]) -> list[NodeProto]:
    """The nodes whose results are read, directly or by other nodes, for the outputs."""
    needed = set(outputs)
    kept: list[NodeProto] = []
    for node in reversed(nodes):
        if needed & set(node.output):
            needed.update(name for each in nodes_within([node]) for name in each.input)
            kept.append(node)
    return kept[::-1]
