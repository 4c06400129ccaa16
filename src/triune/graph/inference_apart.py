"""Infer the shapes of large graphs in a process of its own: ONNX's inference holds the GIL until it has ended."""

import math
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Final

import onnx.checker
import onnx.shape_inference
from onnx import ModelProto, NodeProto

from triune.core.scratch import HeldFolder
from triune.graph.inference import infer_shapes
from triune.graph.values import subgraphs_of
from triune.hosting import Limits, run_in_process

MOST_NODES: Final = 2000
"""The largest number of nodes of a model that is inferred in this process. This takes about 25 µs for each node;
starting another process takes a second.
"""

_CPU_SECONDS: Final = 3600
"""The limit of the CPU time, in seconds, of the process that infers shapes: during inference it cannot notice that its
parent process has ended.
"""


def try_infer_shapes(model: ModelProto, *, has_data: bool = False) -> ModelProto | None:
    """A copy of a model with the shapes that ONNX infers; None if ONNX's inference fails.

    Args:
        model: not changed. It has no large weights: it is written to a file.
        has_data: whether to follow the values of shapes, too (`data_prop`).

    Raises:
        InternalError: the process was killed, or could not be started.
        OSError: the temporary folder cannot be written.
    """
    if num_inferred(model) <= MOST_NODES:
        return _inferred(model, has_data=has_data)
    with HeldFolder() as folder:
        source, target = folder / "given", folder / "inferred"
        source.write_bytes(model.SerializeToString())
        limits = Limits(cpu_seconds=_CPU_SECONDS)
        run_in_process(partial(_infer_file, source, target, has_data=has_data), "the inference of shapes", limits)
        return ModelProto.FromString(target.read_bytes()) if target.exists() else None


def num_inferred(model: ModelProto) -> float:
    """How many nodes ONNX's inference visits: the nodes of subgraphs count, too, and those of a function at each of its
    calls. Infinite for functions that call themselves.
    """
    bodies = {(each.domain, each.name): each.node for each in model.functions}
    known: dict[tuple[str, str], float] = {}

    def count(nodes: Iterable[NodeProto]) -> float:
        return sum(1 + called(node) + sum(count(inner.node) for inner in subgraphs_of(node)) for node in nodes)

    def called(node: NodeProto) -> float:
        name = (node.domain, node.op_type)
        if name not in bodies:
            return 0
        if name not in known:
            known[name] = math.inf
            known[name] = count(bodies[name])
        return known[name]

    return count(model.graph.node)


def _inferred(model: ModelProto, *, has_data: bool) -> ModelProto | None:
    try:
        return infer_shapes(model, data_prop=True) if has_data else infer_shapes(model)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, ValueError, RuntimeError):
        return None


def _infer_file(source: Path, target: Path, *, has_data: bool) -> None:
    """Infer the shapes of the model in `source`, and write it to `target`; nothing if inference fails."""
    inferred = _inferred(ModelProto.FromString(source.read_bytes()), has_data=has_data)
    if inferred is not None:
        target.write_bytes(inferred.SerializeToString())
