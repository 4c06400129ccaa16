"""Run an ONNX model in ONNX Runtime, and estimate the uncertainty of its outputs."""

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

import numpy as np
from onnx import ModelProto

from triune.core.datatypes import Array
from triune.core.errors import InternalError, InvalidArgumentError, UnsupportedError
from triune.graph.custom import NO_CUSTOM_OPS, CustomOps
from triune.graph.custom.resolve import numpy_nodes
from triune.graph.custom.session import Session, session_of
from triune.graph.precision import TOLERANCES
from triune.graph.session import GraphSession, Weights, set_aside
from triune.graph.verify.difference import Difference, difference_of
from triune.graph.verify.noise import PHASE, has_steps, is_random, with_noise
from triune.graph.verify.norms import write_norms
from triune.graph.verify.unsigned import use_unsigned_weights

_Form: TypeAlias = Literal["optimized", "plain", "noisy"]

_OTHER_RESULT: Final = 10.0
"""The uncertainty is the difference between the results with and without optimizations, times this factor, since a
single difference may underestimate the spread. If the model quantizes floats, the factor is `_NOISY_RESULTS` instead.
"""

_NOISY_RESULTS: Final = 1.5
"""The uncertainty is the largest difference between the result and results with noise, times this factor."""

_NOISY: Final[tuple[_Form, ...]] = ("noisy",) * 8

_STEP: Final = 0.02
"""The size of the noise, relative to the tolerance: about ten rounding errors of fp32, or two of fp16."""


class OnnxModel:
    """A model, and variants of it without optimization or with noise, in ONNX Runtime sessions that share the weights.

    Attributes:
        is_random: whether the model may draw random numbers.
    """

    def __init__(
        self, model: ModelProto, tolerance: float = TOLERANCES["fp32"], ops: CustomOps = NO_CUSTOM_OPS
    ) -> None:
        """Args:
        model: not changed. It may have external data, and so be larger than protobuf's 2 GiB.
        tolerance: the allowed relative error of the float type in which the conversion computes (`TOLERANCES`).
        ops: the model's custom operators that numpy or shared libraries compute.
        """
        self._model = ModelProto()
        self._model.CopyFrom(model)
        use_unsigned_weights(self._model)
        write_norms(self._model)
        self._libraries = ops.libraries
        self._ops = ops if numpy_nodes(self._model, ops) else NO_CUSTOM_OPS
        # Sessions of a model that is cut do not share weights: each piece has its own.
        self._weights: Weights | None = None if self._ops else set_aside(self._model)
        self._noisy = with_noise(self._model, _STEP * tolerance, is_exact=tolerance <= TOLERANCES["fp32"])
        self.is_random: Final = is_random(self._model)
        self._has_steps = has_steps(self._model)
        self._num_noisy = 0
        self._sessions: dict[_Form, Session] = {}

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model. Inputs that the model does not have are ignored.

        Raises:
            UnsupportedError: ONNX Runtime cannot run the model, or not with these inputs.
        """
        return self._run(inputs, "optimized")

    def run_plain(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model's nodes one by one, without optimizations, where ONNX Runtime has kernels for all of them.

        Raises:
            UnsupportedError: ONNX Runtime cannot run the model, or not with these inputs.
        """
        try:
            return self._run(inputs, "plain")
        except UnsupportedError:
            return self._run(inputs, "optimized")

    def uncertainty(self, inputs: Mapping[str, Array]) -> dict[str, Difference]:
        """The uncertainty of each output: by how much another result, equally right, may differ.

        It is 0 for most models. Others are run again: without optimizations, so that sums have another order and no
        8-bit products are fused; and with noise (`triune.graph.verify.noise`), if the model quantizes floats or has
        functions such as e^x - 1. The largest difference between the results, times a margin, is the uncertainty. The
        mean difference is kept besides the largest one, since a real error often changes only a few elements.
        """
        with np.errstate(all="ignore"):
            answer = self._run(inputs, "optimized")
            factor = _NOISY_RESULTS if self._has_steps else _OTHER_RESULT
            found = dict.fromkeys(answer, Difference(0.0, 0.0 if self._noisy is not None else np.inf))
            forms: tuple[_Form, ...] = ("plain",) if self._noisy is None else ("plain", *_NOISY)
            for form in forms:
                try:
                    other = self._run(inputs, form)
                except UnsupportedError:
                    # ONNX Runtime may lack kernels for running the model in this form, such as without optimizations.
                    # Then the uncertainty stays what the forms before have shown.
                    break
                for name, array in answer.items():
                    times = factor if form == "plain" else _NOISY_RESULTS
                    found[name] = found[name].maximum(difference_of(array, other[name]).times(times))
        return found

    def _opened(self, form: _Form) -> Session:
        model = self._model if self._noisy is None or form != "noisy" else self._noisy
        is_optimized = form == "optimized"
        if self._weights is None:
            copy = ModelProto()
            copy.CopyFrom(model)
            return session_of(copy, "the model", self._ops, optimizes=is_optimized)
        return GraphSession(
            model, "the model", weights=self._weights, optimizes=is_optimized, libraries=self._libraries
        )

    def _run(self, inputs: Mapping[str, Array], form: _Form) -> dict[str, Array]:
        try:
            if form not in self._sessions:
                self._sessions[form] = self._opened(form)
            if form == "noisy":
                self._num_noisy += 1
                inputs = {**inputs, PHASE: np.array(1.7 * self._num_noisy, np.float32)}
            results, _ = self._sessions[form].run(inputs, {})
        except (InvalidArgumentError, InternalError, UnsupportedError) as error:
            raise UnsupportedError(
                f"ONNX Runtime does not run the model on these inputs, so it was not verified: {error}; give inputs "
                "that it takes with --input"
            ) from error
        return results
