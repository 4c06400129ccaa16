"""Compile graphs that are in memory (`HeldModel`), not in files."""

import tempfile
from pathlib import Path

from triune.backends.tensor.compile import compile_one
from triune.config.placement import Recipe
from triune.core.disk import no_temporary
from triune.core.runtime import Executable
from triune.graph.held import HeldModel
from triune.runtimes.machine import Machine


def compile_held(graph: HeldModel, recipe: Recipe, machine: Machine) -> Executable:
    """Compile a graph, which is written to a temporary folder during the compilation.

    Raises:
        UnavailableError: there is no space in the folder. The errors of `compile_one` are raised too.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="triune-graph-") as folder:
            path = Path(folder) / "model.onnx"
            graph.save(path)
            return compile_one(path, recipe, machine)
    except OSError as error:
        raise no_temporary("the compilation of the graph", error) from error
