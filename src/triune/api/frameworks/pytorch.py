"""Exports PyTorch's modules, programs of torch.export and their .pt2 files, by PyTorch's own exporter."""

import contextlib
import inspect
import logging
import os
import re
import warnings
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from triune.api.frameworks.result import OPSET, Export, ExporterError, Request, library
from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError
from triune.graph.conversion.shapes import Range

_torch = library("torch")
_NODE: Final = re.compile(r"node %(\w+) ")

_WEIGHTS_ONLY: Final = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def export(request: Request) -> Export:
    """Export a torch.nn.Module, an ExportedProgram, or a .pt2 file.

    The inputs of a module are the parameters of its `forward`, by name, each a tensor. Nodes are named after the layers
    that they come from.

    Raises:
        ExporterError: PyTorch cannot export it; the message names the layer.
        InvalidArgumentError: the inputs of a module are missing, or are not those of its `forward`.
    """
    with _quiet():
        program = _program(request)
        names = list(program.graph_signature.user_inputs)
        try:
            done = _torch.onnx.export(
                program, dynamo=True, verbose=False, opset_version=OPSET, optimize=True, external_data=False
            )
        except _torch.onnx.OnnxExporterError as error:
            raise ExporterError(_reason(error, program)) from error
        for node in done.model.graph:
            node.name = _layered(node.name, node.metadata_props.get("pkg.torch.onnx.name_scopes", ""))
        _name_inputs(done.model.graph, names)
        done.save(str(request.target), external_data=False)
    return Export(lambda inputs: _compute(program, names, inputs), _examples(program, names))


def _name_inputs(graph: Any, names: Sequence[str]) -> None:
    """Give the inputs of an exported graph the names of the program's. The exporter renames an input that is an output,
    too: the output gets the name then.
    """
    if len(graph.inputs) != len(names):
        return
    for value, name in zip(graph.inputs, names, strict=True):
        if value.name != name:
            for output in graph.outputs:
                if output.name == name:
                    output.name = f"{name}_output"
            value.name = name


def _program(request: Request) -> Any:
    source = request.source
    if isinstance(source, (str, Path)):
        with _only_weights():
            try:
                return _torch.export.load(str(source))
            except Exception as error:
                raise ExporterError(f"torch.export.load does not read '{Path(source).name}': {error}") from error
    if isinstance(source, _torch.export.ExportedProgram):
        return source
    given = _arguments(source, request)
    try:
        with _torch.no_grad():
            return _torch.export.export(
                source.eval(),
                (),
                kwargs={name: _torch.from_numpy(np.array(array)) for name, array in given.items()},
                dynamic_shapes={name: _dynamic(name, request.dims(name, array)) for name, array in given.items()},
                strict=False,
            )
    except Exception as error:
        # torch.export raises errors of any type, also errors of the module's own code.
        raise ExporterError(f"torch.export cannot trace the module: {_first_lines(error)}") from error


def _arguments(module: Any, request: Request) -> Mapping[str, Array]:
    """The inputs of a module in the order of its parameters."""
    parameters = inspect.signature(module.forward).parameters
    needed = [name for name, each in parameters.items() if each.default is each.empty]
    missing = [name for name in needed if name not in request.inputs]
    unknown = [name for name in request.inputs if name not in parameters]
    if missing or unknown:
        raise InvalidArgumentError(
            f"the inputs of {type(module).__name__} are {', '.join(parameters)}; "
            + (f"'{missing[0]}' is missing" if missing else f"there is no '{unknown[0]}'")
            + ": give an example of each with inputs={name: array}"
        )
    return {name: request.inputs[name] for name in parameters if name in request.inputs}


def _dynamic(name: str, dims: Sequence[Any]) -> dict[int, Any]:
    return {
        axis: _torch.export.Dim(f"{name}_{axis}", min=dim.low, max=dim.high)
        for axis, dim in enumerate(dims)
        if isinstance(dim, Range)
    }


def _examples(program: Any, names: Sequence[str]) -> Mapping[str, Array]:
    """The example inputs with which a program was traced."""
    if program.example_inputs is None:
        return {}
    arguments, keywords = program.example_inputs
    flat = [*arguments, *keywords.values()]
    if len(flat) != len(names) or any(not isinstance(each, _torch.Tensor) for each in flat):
        return {}
    return {name: each.detach().cpu().numpy() for name, each in zip(names, flat, strict=True)}


def _compute(program: Any, names: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
    module = program.module()
    arguments, keywords = program.example_inputs
    tensors = [_torch.from_numpy(np.array(inputs[name])) for name in names]
    with _torch.no_grad(), _quiet():
        count = len(arguments)
        result = module(*tensors[:count], **dict(zip(keywords, tensors[count:], strict=True)))
    found, _ = _torch.utils._pytree.tree_flatten(result)
    return [each.detach().cpu().numpy() for each in found]


def _layered(name: str, scopes: str) -> str:
    """The name of a node after its layer: "encoder.0.linear/node_linear" for the scopes ['', 'encoder.0.linear', …]."""
    try:
        found = [str(each) for each in _literal(scopes)]
    except (SyntaxError, ValueError):
        return name
    layers = [each for each in found[:-1] if each]
    return f"{layers[-1]}/{name}" if layers else name


def _literal(text: str) -> Sequence[Any]:
    import ast

    return ast.literal_eval(text)


def _reason(error: BaseException, program: Any) -> str:
    """The text that says why an export failed, with the layer that could not be converted."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(cause)
        cause = cause.__cause__
    text = " ".join(str(each) for each in causes)
    at = _node_named_in(text, program)
    layer = "" if at is None else _layer_of(at)
    return f"PyTorch's exporter cannot convert {layer or 'the program'}: {_first_lines(causes[-1])}"


def _node_named_in(text: str, program: Any) -> Any:
    """The node of a program that an error message names as "node %name "; None if it names no node.

    The exporter decomposes operators before it converts them, and may name the result by the end of the operator's
    name: `bessel_j0` for `special_bessel_j0`.
    """
    found = _NODE.search(text)
    if found is None:
        return None
    nodes = list(program.graph.nodes)
    same = [node for node in nodes if node.name == found[1]]
    return next(iter([*same, *(node for node in nodes if node.name.endswith(f"_{found[1]}"))]), None)


def _layer_of(node: Any) -> str:
    """The layer that a node of a program comes from: "layer 'odd' (Bessel), torch.ops.prims.bessel_j0"."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    if not stack:
        return f"{node.target}"
    path, kind = stack[-1]
    name = kind if isinstance(kind, str) else kind.__name__
    return f"layer '{path}' ({name.rpartition('.')[2]}), {node.target}"


def _first_lines(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:4])}"[:600]


@contextlib.contextmanager
def _only_weights() -> Generator[None]:
    """Make torch.load read only tensors: parts of a .pt2 file may be pickles, which torch.export.load (2.13) would
    load as code.
    """
    before = os.environ.get(_WEIGHTS_ONLY)
    os.environ[_WEIGHTS_ONLY] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_WEIGHTS_ONLY]
        else:
            os.environ[_WEIGHTS_ONLY] = before


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Suppress messages of the exporter that do not concern the user: on torchvision, and on its own deprecations."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)
