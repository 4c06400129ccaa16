"""A request of many rows that is computed in several batches, so that other requests are computed in between."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from triune.core.datatypes import Array
from triune.core.statistics import FailureReason

if TYPE_CHECKING:
    from triune.scheduling.batch import Batch
    from triune.scheduling.queue import Pending


class Division:
    """Divides the rows of a request into parts. Each part is a `Pending` of its own, with the client's future.

    The next part is made when the one before it starts, so that it can be as large as the measurements of that moment
    allow, and waits behind the requests that came meanwhile.

    Attributes:
        whole: the request, which is never queued itself.
        num_open: the number of parts that wait or run.
        reason: why the first part that failed did so; None if none has failed.
        started_ns: when the first part started; 0 before it has ended.
        input_ns, infer_ns, output_ns: the sums of the parts' times: to join inputs, to run the model, to split outputs.
    """

    def __init__(self, whole: "Pending") -> None:
        """`whole` has at least one row, and the first dimension of each of its inputs is the batch dimension."""
        self.whole = whole
        self.num_open = 0
        self.reason: FailureReason | None = None
        self.started_ns = self.input_ns = self.infer_ns = self.output_ns = 0
        self._num_given = 0
        self._outputs: dict[int, dict[str, Array]] = {}

    @property
    def num_left(self) -> int:
        """The number of rows that no part has; 0 if the request is answered, since no further part is needed then."""
        return 0 if self.whole.future.done() else self.whole.call.batch_size - self._num_given

    @property
    def is_last_open(self) -> bool:
        """Whether only one part has not ended yet, and no further one follows."""
        return self.num_open == 1 and not self.num_left

    def next(self, num_rows: int) -> "Pending":
        """Make the part of the next `num_rows` rows, or of those that are left. Its inputs are views."""
        begin = self._num_given
        end = self._num_given = min(begin + num_rows, self.whole.call.batch_size)
        self.num_open += 1
        call = self.whole.call
        inputs = {name: array[begin:end] for name, array in call.inputs.items()}
        part = replace(call, inputs=inputs, batch_size=end - begin, finish=None, compute_time=None)
        return replace(self.whole, call=part, deadline_ns=0, division=self, row=begin)

    def shrink(self, part: "Pending", num_rows: int) -> None:
        """Cut a waiting part to its first `num_rows` rows, for a slower unit. The next part begins with the rows that
        were cut off. Does nothing if another part was made after this one.
        """
        if part.row + part.call.batch_size != self._num_given:
            return
        self._num_given = part.row + num_rows
        inputs = {name: array[:num_rows] for name, array in part.call.inputs.items()}
        part.call = replace(part.call, inputs=inputs, batch_size=num_rows)
        part.num_elements = sum(array.size for array in inputs.values())

    def add(self, part: "Pending", outputs: dict[str, Array], batch: "Batch") -> bool:
        """Add the outputs and times of a part that `batch` has computed. Returns whether it was the last one."""
        self.num_open -= 1
        self._outputs[part.row] = outputs
        self.started_ns = min(self.started_ns or batch.started_ns, batch.started_ns)
        self.input_ns += batch.input_ns
        self.infer_ns += batch.infer_ns
        self.output_ns += batch.output_ns
        return not self.num_open and not self.num_left

    @property
    def num_bytes(self) -> int:
        """The size of all outputs that were added."""
        return sum(array.nbytes for outputs in self._outputs.values() for array in outputs.values())

    def joined(self) -> dict[str, Array]:
        """The outputs of all rows by name: those of the parts, concatenated in the order of their rows."""
        parts = [self._outputs[row] for row in sorted(self._outputs)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
