"""An ONNX model computed by ONNX Runtime, and how sure ONNX Runtime is of its own answers."""

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto

from triune.core.datatypes import Array
from triune.core.errors import InternalError, InvalidArgumentError, UnsupportedError
from triune.graph.session import GraphSession, Weights, set_aside
from triune.graph.verify.unsigned import use_unsigned_weights


class OnnxModel:
    """Sessions over one copy of the weights, made when they are first needed."""

    def __init__(self, model: ModelProto) -> None:
        """Args:
        model: not changed. Weights that are beside it are read from there; protobuf's 2 GiB do not matter.
        """
        self._model = ModelProto()
        self._model.CopyFrom(model)
        use_unsigned_weights(self._model)
        self._weights: Weights = set_aside(self._model)
        self._sessions: dict[bool, GraphSession] = {}

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs; inputs that the model has not are passed over.

        Raises:
            UnsupportedError: ONNX Runtime does not do the model, or not with these inputs.
        """
        return self._run(inputs, optimizes=True)

    def doubt(self, inputs: Mapping[str, Array]) -> dict[str, float]:
        """How far each output is from that which ONNX Runtime gives without its optimizations.

        It is 0 for most models. Where sums in another order, or fused 8-bit products, change an answer, it tells by
        how much.
        """
        try:
            with np.errstate(all="ignore"):
                one, other = (self._run(inputs, optimizes=each) for each in (True, False))
                return {name: _largest_difference(array, other[name]) for name, array in one.items()}
        except UnsupportedError:
            # Fewer kernels are there for what is not optimized. Then nothing is known against the first answer.
            return {}

    def _run(self, inputs: Mapping[str, Array], *, optimizes: bool) -> dict[str, Array]:
        try:
            if optimizes not in self._sessions:
                self._sessions[optimizes] = GraphSession(
                    self._model, "the model", weights=self._weights, optimizes=optimizes
                )
            results, _ = self._sessions[optimizes].run(inputs, {})
        except (InvalidArgumentError, InternalError, UnsupportedError) as error:
            raise UnsupportedError(
                f"ONNX Runtime does not run the model on these inputs, so it was not verified: {error}; give inputs "
                "that it takes with --input"
            ) from error
        return results


def _largest_difference(one: Array, other: Array) -> float:
    if one.shape != other.shape or one.dtype.kind not in "biuf":
        return 0.0
    difference = np.abs(one.astype(np.float64) - other.astype(np.float64))
    return float(np.max(difference, where=np.isfinite(difference), initial=0.0))
