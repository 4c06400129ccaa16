"""Compare a model with the result of passes, on random inputs and on inputs that reveal differences."""

import time
from collections.abc import Mapping, Sequence

from onnx import ModelProto

from triune.core.datatypes import Array
from triune.core.errors import InternalError, InvalidArgumentError, UnsupportedError
from triune.graph.audit import InputSet
from triune.graph.conversion.shapes import InputShape
from triune.graph.custom import NO_CUSTOM_OPS, CustomOps
from triune.graph.precision import TOLERANCES, precision_of
from triune.graph.verify import OnnxModel, OutputVerdict, Verdict, samples_of, verify
from triune.graph.verify.difference import Difference
from triune.graph.verify.noise import is_random
from triune.graph.weight_files import num_bytes

EXACT_TOLERANCE = 1e-6
"""The allowed error of an exact pass, relative to an output's largest value. It is not 0, since constant folding may
round differently from the runtime.
"""

_MOST_HELD_BYTES = 1 << 28
"""The largest size of a source's weights for which its sessions stay open."""

_MOST_KEPT_BYTES = 1 << 28
"""The largest size of the source's results that are kept; larger results are computed again for each comparison."""


class Comparison:
    """The source of an optimization, and the inputs on which candidates are compared with it.

    ONNX Runtime's sessions hold copies of the weights. If a model's weights are large, the source's sessions are closed
    before a candidate is loaded.
    """

    def __init__(
        self,
        source: ModelProto,
        shapes: Mapping[str, InputShape],
        given: Mapping[str, Array],
        ops: CustomOps = NO_CUSTOM_OPS,
    ) -> None:
        """Args:
        source: the model, with inferred shapes; not changed.
        shapes: the limits of its free dimensions, by input.
        given: the user's arrays by input; values for other inputs are made up.
        ops: the custom operators that numpy computes.

        Raises:
            UnsupportedError: values cannot be made up for an input.
        """
        self.tolerance = TOLERANCES[precision_of(source)]
        self.is_random = is_random(source)
        self._model = source
        self._ops = ops
        self._sets: Sequence[InputSet] = samples_of(source, shapes, given, is_half=self.tolerance > TOLERANCES["fp32"])
        self._has_small_weights = sum(map(num_bytes, source.graph.initializer)) <= _MOST_HELD_BYTES
        self._session: OnnxModel | None = None
        self._results: dict[tuple[int, bool], Mapping[str, Array]] = {}
        self._num_bytes = 0

    def verdicts(
        self, candidate: ModelProto, *, is_exact: bool, is_plain: bool, seconds: float
    ) -> Sequence[OutputVerdict]:
        """Compare a candidate with the source.

        Args:
            candidate: not changed.
            is_exact: whether only the rounding of folded constants may differ.
            is_plain: whether ONNX Runtime runs the candidate and the source node by node; else it optimizes both
                itself.
            seconds: after this time no further set of inputs is tried; at least one set is tried.

        Raises:
            UnsupportedError, InvalidArgumentError: the source takes none of the inputs, or the candidate does not run.
            InternalError: an output has another shape.
        """
        positions = {id(each.arrays): position for position, each in enumerate(self._sets)}
        sets = self._sets
        if not self._has_small_weights:
            self._answer_ahead(is_plain=is_plain, seconds=seconds)
            sets = [each for at, each in enumerate(sets) if (at, is_plain) in self._results] or sets
            self._session = None
        model = OnnxModel(candidate, self.tolerance, self._ops)
        tolerance = min(EXACT_TOLERANCE, self.tolerance) if is_exact else self.tolerance
        result = model.run_plain if is_plain else model.run

        def source(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
            return self._answers(positions[id(inputs)], is_plain=is_plain)

        return verify(sets, source, result, self, tolerance, seconds=seconds)

    def uncertainty(self, inputs: Mapping[str, Array]) -> Mapping[str, Difference]:
        """The uncertainty of the source's outputs: `OnnxModel.uncertainty`."""
        return self._opened().uncertainty(inputs)

    def _answer_ahead(self, *, is_plain: bool, seconds: float) -> None:
        """Run the source on the sets of inputs that it accepts, until the time is over, and keep its results."""
        started = time.monotonic()
        for position in range(len(self._sets)):
            try:
                self._answers(position, is_plain=is_plain)
            except (InvalidArgumentError, UnsupportedError):
                # Skip a set of inputs that the source refuses. If it accepts none, `verify` raises the error later.
                continue
            if time.monotonic() - started > seconds:
                return

    def _answers(self, position: int, *, is_plain: bool) -> Mapping[str, Array]:
        key = (position, is_plain)
        if key in self._results:
            return self._results[key]
        inputs = self._sets[position].arrays
        found = self._opened().run_plain(inputs) if is_plain else self._opened().run(inputs)
        size = sum(each.nbytes for each in found.values())
        if not self.is_random and self._num_bytes + size <= _MOST_KEPT_BYTES:
            self._results[key] = found
            self._num_bytes += size
        return found

    def _opened(self) -> OnnxModel:
        if self._session is None:
            self._session = OnnxModel(self._model, self.tolerance, self._ops)
        return self._session

    def wrong(self, candidate: ModelProto, *, is_exact: bool, is_plain: bool, seconds: float) -> str:
        """Why a candidate is wrong, or does not run; "" if it is right. The arguments are those of `verdicts`."""
        try:
            found = self.verdicts(candidate, is_exact=is_exact, is_plain=is_plain, seconds=seconds)
        except (InternalError, InvalidArgumentError, UnsupportedError) as error:
            return str(error)
        return "; ".join(each.described for each in found if each.verdict is Verdict.WRONG)
