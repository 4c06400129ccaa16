"""A graph, its inputs, and the allowed difference between its answers in fp16 and fp32."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx.parser
import onnx.shape_inference
from onnx import GraphProto, ModelProto, TensorProto, compose, helper, numpy_helper

from support.lowered import plain_answers

_OPSET = 23


@dataclass(frozen=True)
class HalfCase:
    """A graph of one output `y`.

    Attributes:
        name: the case's name, of letters and underscores.
        model: the graph.
        feeds: the inputs by name.
        bound: the allowed difference between the answers in fp16 and fp32, relative to the largest answer.
    """

    name: str
    model: ModelProto
    feeds: Mapping[str, Any]
    bound: float = 1e-2

    @property
    def output(self) -> str:
        """The name of the output in the model that `joined` makes."""
        return f"{self.name}_y"

    def renamed_feeds(self) -> dict[str, Any]:
        """The inputs by their names in the model that `joined` makes."""
        return {f"{self.name}_{name}": array for name, array in self.feeds.items()}


def half_case(
    name: str, nodes: str, constants: Mapping[str, Any] | None = None, bound: float = 1e-2, **feeds: Any
) -> HalfCase:
    """Make a case from nodes in ONNX's text format. Constants and inputs have the types and shapes of their arrays."""
    graph: GraphProto = onnx.parser.parse_graph(f"g () => () {{ {nodes} }}")
    for constant, array in (constants or {}).items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(array), constant))
    for given, array in feeds.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        graph.input.append(helper.make_tensor_value_info(given, kind, array.shape))
    graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, None))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10)
    typed = onnx.shape_inference.infer_shapes(model)
    return HalfCase(name, typed, feeds, bound)


def joined(cases: Sequence[HalfCase]) -> ModelProto:
    """Join all cases to one model, since converting a model takes time, however small it is."""
    graph = GraphProto(name="g")
    for case in cases:
        inner = compose.add_prefix(case.model, f"{case.name}_").graph
        graph.node.extend(inner.node)
        graph.initializer.extend(inner.initializer)
        graph.input.extend(inner.input)
        graph.output.extend(inner.output)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10)


def floats(*numbers: float) -> Any:
    """A row of fp32."""
    return np.array([numbers], np.float32)


def noise(*shape: int, seed: int = 0) -> Any:
    """Random numbers with a standard normal distribution, in fp32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def number(value: float) -> Any:
    """A scalar of fp32."""
    return np.array(value, np.float32)


def misses(cases: Sequence[HalfCase], answers: Mapping[str, Any]) -> list[str]:
    """The cases whose answers differ too much from those of ONNX Runtime in fp32. `answers` are by the names of
    `joined`'s outputs.
    """
    found: list[str] = []
    for case in cases:
        (right,) = plain_answers(case.model, case.feeds)
        actual = np.asarray(answers[case.output]).reshape(right.shape)
        with np.errstate(invalid="ignore"):
            error = np.where((actual == right) | np.isnan(right), 0, np.abs(actual - right))
        largest = np.abs(right[np.isfinite(right)]).max(initial=1e-3)
        if not (error <= case.bound * largest).all():
            found.append(f"{case.name}: {error.max():.3g} of {largest:.3g}")
    return found


def chosen(cases: Sequence[HalfCase], stride: int) -> Sequence[HalfCase]:
    """All cases if the conformance suite runs as a whole, else every fourth, since converting them takes time."""
    return cases if stride == 1 else cases[::4]
