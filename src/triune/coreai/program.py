"""Read Core AI programs that Apple's library has loaded: their graphs and functions."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from triune.core.errors import InvalidArgumentError, NotFoundError
from triune.coreai.library import authoring, dialect, plain

_NAME = "coreai.name"


def load_program(path: Path) -> Any:
    """Load the program of an asset.

    Broken bytecode crashes Apple's library. So call `coreai.description.describe` first, which checks the file in a
    process of its own.

    Raises:
        InvalidArgumentError: the library rejects the program.
    """
    try:
        return authoring.AIModelAsset.load(path).program
    # Catch `Exception`, the only common base class of the exceptions of Swift and MLIR.
    except Exception as error:
        raise InvalidArgumentError(f"Core AI does not read '{path.name}': {plain(error)}") from error


def mlir_module(program: Any) -> Any:
    """The MLIR module of a program, which Apple's Python bindings keep in a private attribute."""
    return program._module._mlir_module


def graphs_of(program: Any) -> dict[str, Any]:
    """The graphs of a program by name, including those in namespaces."""
    return {graph.symbol_name: graph for graph in _graphs(mlir_module(program).body)}


def _graphs(block: Any) -> Iterator[Any]:
    for operation in block.operations:
        view = getattr(operation, "opview", operation)
        if isinstance(view, dialect.GraphOp):
            yield view
        elif view.operation.name == "udml.namespace":
            yield from _graphs(view.regions[0].blocks[0])


def functions_of(graphs: Mapping[str, Any]) -> dict[str, Any]:
    """The public functions: those that can be called from outside."""
    return {name: graph for name, graph in graphs.items() if not graph.priv}


def find_function(names: Sequence[str], name: str | None, file: str) -> str:
    """The function called `name`; for None, "main" or the only one. Raises NotFoundError if there is none."""
    if name is None:
        name = "main" if "main" in names or len(names) != 1 else names[0]
    if name not in names:
        known = ", ".join(f"'{each}'" for each in names) or "none"
        raise NotFoundError(f"'{file}' has no function '{name}'; it has {known}")
    return name


def argument_names(graph: Any) -> list[str]:
    """The names of a graph's arguments; "" for an argument without a name."""
    return _names(graph.arg_attrs, len(graph.regions[0].blocks[0].arguments))


def results_of(graph: Any) -> list[Any]:
    """The values that a graph returns."""
    return list(list(graph.regions[0].blocks[0].operations)[-1].operands)


def result_names(graph: Any) -> list[str]:
    """The names of a graph's results; "" for a result without a name."""
    return _names(graph.res_attrs, len(results_of(graph)))


def invoked(view: Any) -> str:
    """The name of the graph in an attribute such as `#param.bind<@NAME>`, or `@"NAME"` for one with special characters.

    Raises:
        InvalidArgumentError: the attribute has no name.
    """
    text = str(view.attributes["callee"])
    found = re.search(r"@(?:\"((?:[^\"\\]|\\.)*)\"|([\w$.]+))(?!.*@)", text)
    if found is None:
        raise InvalidArgumentError(f"it invokes {text}, which is not a name")
    return found[1] if found[1] is not None else found[2]


def is_token(value: Any) -> bool:
    """Whether a value is a token. Tokens only order the reads and writes of states."""
    return str(value.type).startswith("!coreai.token")


def _names(attributes: Any, count: int) -> list[str]:
    found = [each[_NAME].value if _NAME in each else "" for each in attributes or ()]
    return found if len(found) == count else [""] * count
