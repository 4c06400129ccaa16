"""A test case: one operator, its inputs, and ONNX Runtime's answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, NodeProto, helper, numpy_helper

MICROSOFT, CLASSICAL = "com.microsoft", "ai.onnx.ml"
_OPSET_OF_ORT = 21
_VERSIONS = {"TreeEnsembleRegressor": 3, "TreeEnsembleClassifier": 3, "TreeEnsemble": 5}


@dataclass(frozen=True)
class Case:
    """A model of one node.

    Attributes:
        name: the case's name, which begins with the operator's name.
        domain: the operator's domain.
        inputs: the inputs of the node, in order; None for an omitted input.
        weights: the names of inputs that are constants, as in exported models.
        outputs: the outputs of the node, in order, with their types; None for an omitted output.
        attributes: the node's attributes.
        atol: the allowed absolute difference from ONNX Runtime's numbers.
        reason: a part of the message with which the conversion refuses the case; "" if it is converted.
    """

    name: str
    domain: str
    inputs: Mapping[str, Any]
    weights: Sequence[str] = ()
    outputs: Mapping[str, Any] = field(default_factory=lambda: {"y": np.float32})
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    atol: float = 1e-5
    reason: str = ""

    @property
    def op_type(self) -> str:
        return self.name.split(" ")[0]

    def feeds(self) -> dict[str, Any]:
        return {name: each for name, each in self.inputs.items() if each is not None and name not in self.weights}

    def node(self) -> NodeProto:
        names = [name if each is not None else "" for name, each in self.inputs.items()]
        while names and not names[-1]:
            names.pop()
        results = [name if kind is not None else "" for name, kind in self.outputs.items()]
        attributes = {name: each for name, each in self.attributes.items() if each is not None}
        return helper.make_node(self.op_type, names, results, domain=self.domain, **attributes)

    def model(self, shapes: Mapping[str, Sequence[int]] | None = None) -> ModelProto:
        """Make the model. `shapes` are the declared shapes of the outputs; if they are not given, the shape of the
        first input is declared.
        """
        usual = next(iter(self.feeds().values())).shape
        values = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(each.dtype), each.shape)
            for name, each in self.feeds().items()
        ]
        results = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), usual if shapes is None else shapes.get(name)
            )
            for name, kind in self.outputs.items()
            if kind is not None
        ]
        weights = [numpy_helper.from_array(self.inputs[name], name) for name in self.weights]
        graph = helper.make_graph([self.node()], "contrib", values, results, weights)
        version = _VERSIONS.get(self.op_type, 4) if self.domain == CLASSICAL else 1
        imports = [helper.make_opsetid("", _OPSET_OF_ORT), helper.make_opsetid(self.domain, version)]
        return helper.make_model(graph, opset_imports=imports, ir_version=10)

    def expected(self) -> dict[str, Any]:
        names = [name for name, kind in self.outputs.items() if kind is not None]
        return dict(zip(names, computed(self.model({}), self.feeds()), strict=True))


_NEWEST_QUANTIZED_IN_ORT = 25


def lowered_opset(model: ModelProto) -> ModelProto:
    """Declare an older operator set version with the same meaning, since ONNX Runtime has no kernel for
    QuantizeLinear-28 yet.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    for each in copy.opset_import:
        if not each.domain:
            each.version = min(each.version, _NEWEST_QUANTIZED_IN_ORT)
    return copy


def computed(model: ModelProto, feeds: Mapping[str, Any]) -> list[Any]:
    """Compute a model with ONNX Runtime without its optimizer, which would replace some operators by others."""
    options: Any = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session: Any = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(feeds))


def difference(case: Case, name: str, actual: Any, expected: Any) -> str:
    """Describe how an output differs from ONNX Runtime's by more than the case allows; empty if it does not."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    if actual.shape != expected.shape:
        return f"output '{name}' is of shape {actual.shape} instead of {expected.shape}"
    one, other = actual.astype(np.float64), expected.astype(np.float64)
    if np.allclose(one, other, rtol=1e-4, atol=case.atol, equal_nan=True):
        return ""
    with np.errstate(all="ignore"):
        return f"output '{name}' differs by up to {np.nanmax(np.abs(one - other)):.3g}"


def microsoft(name: str, inputs: Mapping[str, Any], **options: Any) -> Case:
    return Case(name, MICROSOFT, inputs, **options)


def classical(name: str, inputs: Mapping[str, Any], **options: Any) -> Case:
    return Case(name, CLASSICAL, inputs, **options)


def floats(*shape: int, seed: int = 0, scale: float = 1.0) -> Any:
    return (np.random.default_rng([seed, *shape]).standard_normal(shape) * scale).astype(np.float32)
