"""An ONNX model run by ONNX Runtime, and the uncertainty of ONNX Runtime's own answers."""

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

import numpy as np
from onnx import ModelProto

from triune.core.datatypes import Array
from triune.core.errors import InternalError, InvalidArgumentError, UnsupportedError
from triune.graph.precision import TOLERANCES
from triune.graph.session import GraphSession, Weights, set_aside
from triune.graph.verify.difference import Difference, difference_of
from triune.graph.verify.noise import has_steps, is_random, with_noise
from triune.graph.verify.norms import write_norms
from triune.graph.verify.unsigned import use_unsigned_weights

_Form: TypeAlias = Literal["optimized", "plain", "noisy"]

_DOUBT: Final = 10.0
"""The factor of uncertainty for one other answer of ONNX Runtime: one sample may underestimate the spread."""

_MOVES: Final = 1.5
"""The factor of uncertainty for the most distant of several answers with noise."""

_NOISY: Final[tuple[_Form, ...]] = ("noisy",) * 8

_STEP: Final = 0.02
"""The size of the noise by tolerance: about ten roundings of fp32, or two of fp16."""


class OnnxModel:
    """ONNX Runtime sessions of variants of a model that share its weights; each is made when first needed.

    Attributes:
        is_random: whether the model may draw random numbers.
    """

    def __init__(self, model: ModelProto, tolerance: float = TOLERANCES["fp32"]) -> None:
        """Args:
        model: not changed. Weights that are beside it are read from there; protobuf's 2 GiB do not matter.
        tolerance: the relative rounding error of the floats in which the conversion computes.
        """
        self._model = ModelProto()
        self._model.CopyFrom(model)
        use_unsigned_weights(self._model)
        write_norms(self._model)
        self._weights: Weights = set_aside(self._model)
        self._noisy = with_noise(self._model, _STEP * tolerance, is_exact=tolerance <= TOLERANCES["fp32"])
        self.is_random: Final = is_random(self._model)
        self._has_steps = has_steps(self._model)
        self._sessions: dict[_Form, GraphSession] = {}

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model. Inputs that the model does not have are ignored.

        Raises:
            UnsupportedError: ONNX Runtime cannot run the model, or not with these inputs.
        """
        return self._run(inputs, "optimized")

    def doubt(self, inputs: Mapping[str, Array]) -> dict[str, Difference]:
        """The uncertainty of each output: how far another, equally right answer may be.

        It is 0 for most models. Where sums in another order or fused 8-bit products change an answer, it is the
        distance to ONNX Runtime's answer without optimizations. Where the model quantizes floats or cancels near zero,
        it is the distance to answers with noise (`triune.graph.verify.noise`). Both the mean and the
        largest difference are kept: the mean recognizes an error that moves only a few elements.
        """
        with np.errstate(all="ignore"):
            answer = self._run(inputs, "optimized")
            factor = _MOVES if self._has_steps else _DOUBT
            found = dict.fromkeys(answer, Difference(0.0, 0.0 if self._noisy is not None else np.inf))
            forms: tuple[_Form, ...] = ("plain",) if self._noisy is None else ("plain", *_NOISY)
            for form in forms:
                try:
                    other = self._run(inputs, form)
                except UnsupportedError:
                    # ONNX Runtime may lack kernels for the unoptimized model; the answer then counts as certain.
                    break
                for name, array in answer.items():
                    times = factor if form == "plain" else _MOVES
                    found[name] = found[name].joined(difference_of(array, other[name]).times(times))
        return found

    def _run(self, inputs: Mapping[str, Array], form: _Form) -> dict[str, Array]:
        try:
            if form not in self._sessions:
                model = self._model if self._noisy is None or form != "noisy" else self._noisy
                self._sessions[form] = GraphSession(
                    model, "the model", weights=self._weights, optimizes=form == "optimized"
                )
            results, _ = self._sessions[form].run(inputs, {})
        except (InvalidArgumentError, InternalError, UnsupportedError) as error:
            raise UnsupportedError(
                f"ONNX Runtime does not run the model on these inputs, so it was not verified: {error}; give inputs "
                "that it takes with --input"
            ) from error
        return results
