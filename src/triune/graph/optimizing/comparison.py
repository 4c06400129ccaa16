"""Compare a model with what passes made of it, on made-up and revealing inputs."""

from collections.abc import Mapping, Sequence

from onnx import ModelProto

from triune.core.datatypes import Array
from triune.core.errors import InternalError, InvalidArgumentError, UnsupportedError
from triune.graph.audit import InputSet
from triune.graph.conversion.shapes import InputShape
from triune.graph.precision import TOLERANCES, precision_of
from triune.graph.verify import OnnxModel, OutputVerdict, Verdict, samples_of, verify

EXACT_TOLERANCE = 1e-6
"""The allowed error of an exact pass, relative to an output's largest value: constants that were folded may be rounded
otherwise than the runtime rounds.
"""

_MOST_KEPT_BYTES = 1 << 28
"""The source's results are kept up to this size, and computed again beyond it."""


class Comparison:
    """The source of an optimization, and the inputs on which candidates are compared with it."""

    def __init__(self, source: ModelProto, shapes: Mapping[str, InputShape], given: Mapping[str, Array]) -> None:
        """Args:
        source: the model, with inferred shapes; not changed.
        shapes: the limits of its free dimensions, by input.
        given: the user's arrays by input; values for other inputs are made up.

        Raises:
            UnsupportedError: values cannot be made up for an input, or ONNX Runtime cannot load the model.
        """
        self.tolerance = TOLERANCES[precision_of(source)]
        self._sets: Sequence[InputSet] = samples_of(source, shapes, given, is_half=self.tolerance > TOLERANCES["fp32"])
        self._source = OnnxModel(source, self.tolerance)
        self._results: dict[tuple[int, bool], Mapping[str, Array]] = {}
        self._num_bytes = 0

    def verdicts(
        self, candidate: ModelProto, *, is_exact: bool, is_plain: bool, seconds: float
    ) -> Sequence[OutputVerdict]:
        """Compare a candidate with the source.

        Args:
            candidate: not changed.
            is_exact: whether only the rounding of folded constants may differ.
            is_plain: whether ONNX Runtime runs both node by node, or optimizes both itself.
            seconds: after this time no further set of inputs is tried; one is in any case.

        Raises:
            UnsupportedError, InvalidArgumentError: the source takes none of the inputs, or the candidate does not run.
            InternalError: an output has another shape.
        """
        model = OnnxModel(candidate, self.tolerance)
        positions = {id(each.arrays): position for position, each in enumerate(self._sets)}

        def source(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
            key = (positions[id(inputs)], is_plain)
            if key in self._results:
                return self._results[key]
            found = self._source.run_plain(inputs) if is_plain else self._source.run(inputs)
            size = sum(each.nbytes for each in found.values())
            if not self._source.is_random and self._num_bytes + size <= _MOST_KEPT_BYTES:
                self._results[key] = found
                self._num_bytes += size
            return found

        tolerance = min(EXACT_TOLERANCE, self.tolerance) if is_exact else self.tolerance
        result = model.run_plain if is_plain else model.run
        return verify(self._sets, source, result, self._source, tolerance, seconds=seconds)

    def wrong(self, candidate: ModelProto, *, is_exact: bool, is_plain: bool, seconds: float) -> str:
        """Why a candidate is wrong, or does not run; "" if it is right. The arguments are those of `verdicts`."""
        try:
            found = self.verdicts(candidate, is_exact=is_exact, is_plain=is_plain, seconds=seconds)
        except (InternalError, InvalidArgumentError, UnsupportedError) as error:
            return str(error)
        return "; ".join(each.described for each in found if each.verdict is Verdict.WRONG)
