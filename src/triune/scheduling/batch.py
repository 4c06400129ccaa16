"""One execution: requests joined to a batch, run, and their answers parted again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from triune.config.policy import BatchingPolicy
from triune.core.clock import Clock
from triune.core.datatypes import Array
from triune.core.errors import InternalError, TriuneError, no_memory
from triune.core.requests import InferenceResponse
from triune.core.runtime import Executable
from triune.core.tensors import Signature, format_shape
from triune.scheduling.queue import Pending

Respond: TypeAlias = Callable[[Pending, dict[str, Array]], InferenceResponse]


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The model has answered, and the client's view of that could not be made."""

    error: Exception


class Batch:
    """Requests that run together.

    Attributes:
        pendings: the requests, in order.
        num_rows: rows altogether.
        answers: for each request, its outputs by name or the error; filled by `execute`. Of requests with a `finish`,
            the finished response: it may take its time, as a classification does, so the worker makes it.
        num_executions: how often the model ran: 1, or more if the batch failed and each request ran alone.
        started_ns, ended_ns: when `execute` began and ended, on the clock.
        input_ns, infer_ns, output_ns: what joining, running and parting took.
        is_given_up: nobody waits for it any more; set on the event loop's thread.
        is_indivisible: what came back for joined requests had another number of rows than they have.
    """

    __slots__ = (
        "_has_rows", "_outputs", "_ragged", "_respond", "answers", "ended_ns", "infer_ns", "input_ns", "is_given_up",
        "is_indivisible", "num_executions", "num_rows", "output_ns", "pendings", "started_ns",
    )  # fmt: skip

    def __init__(
        self,
        pendings: Sequence[Pending],
        num_rows: int,
        outputs: Sequence[str],
        policy: BatchingPolicy,
        respond: Respond | None = None,
    ) -> None:
        """Args:
        pendings: at least one, all of one group.
        num_rows: rows altogether.
        outputs: the model's outputs, in order.
        policy: whether there are rows at all, and which inputs' rows may differ in shape.
        respond: makes the response of a request with a `finish`; None leaves that to others.
        """
        self._respond = respond
        self.pendings = pendings
        self.num_rows = num_rows
        self.answers: Sequence[dict[str, Array] | InferenceResponse | TriuneError | Unfinished] = ()
        self.num_executions = 0
        self.started_ns = self.ended_ns = 0
        self.input_ns = self.infer_ns = self.output_ns = 0
        self.is_given_up = False
        self.is_indivisible = False
        self._outputs = outputs
        self._has_rows = policy.max_batch_size > 0
        self._ragged = policy.ragged_inputs

    def execute(self, executable: Executable, clock: Clock) -> None:
        """Run the batch and fill `answers`. Never raises: a failure is the answer of the requests it belongs to."""
        self.started_ns = clock.now_ns()
        answers = self._run(self.pendings, executable, clock)
        if len(self.pendings) > 1 and not self.is_given_up and any(isinstance(each, TriuneError) for each in answers):
            # One request can spoil a batch (an index out of range, say); the others are not to pay for it.
            answers = [self._run([pending], executable, clock)[0] for pending in self.pendings]
        respond = self._respond
        if respond is None or all(pending.call.finish is None for pending in self.pendings):
            self.answers = answers
        else:
            self.answers = [_finish(*each, respond) for each in zip(self.pendings, answers, strict=True)]

    def _run(
        self, pendings: Sequence[Pending], executable: Executable, clock: Clock
    ) -> Sequence[dict[str, Array] | TriuneError]:
        self.num_executions += 1
        is_joined = len(pendings) > 1
        begun_ns = joined_ns = self.ended_ns or self.started_ns
        try:
            inputs = pendings[0].call.inputs
            if is_joined:
                inputs = join(pendings, self._ragged)
                joined_ns = clock.now_ns()
            results = executable.run(inputs, self._wanted(pendings))
            ran_ns = self.ended_ns = clock.now_ns()
            answers: Sequence[dict[str, Array] | TriuneError] = (results,)
            if self._has_rows:
                self._check_rows(pendings, results)
            if is_joined:
                answers = part(pendings, results, executable.signature, self._ragged)
                self.ended_ns = clock.now_ns()
            self.input_ns += joined_ns - begun_ns
            self.infer_ns += ran_ns - joined_ns
            self.output_ns += self.ended_ns - ran_ns
        except TriuneError as error:
            self.ended_ns = clock.now_ns()
            return [error] * len(pendings)
        except MemoryError:
            self.ended_ns = clock.now_ns()
            return [no_memory(f"a request to model '{pendings[0].call.request.model}'")] * len(pendings)
        except Exception as error:  # noqa: BLE001 - a runtime's surprise must not end the worker: it is an answer
            self.ended_ns = clock.now_ns()
            failure = InternalError(f"model '{pendings[0].call.request.model}' failed: {type(error).__name__}: {error}")
            failure.__cause__ = error
            return [failure] * len(pendings)
        return answers

    def _check_rows(self, pendings: Sequence[Pending], results: Mapping[str, Array]) -> None:
        """Raise InternalError for an output that has not one row for each row of the requests."""
        num_rows = sum(pending.call.batch_size for pending in pendings)
        for name, array in results.items():
            if array.ndim == 0 or array.shape[0] != num_rows:
                self.is_indivisible = self.is_indivisible or len(pendings) > 1
                raise InternalError(
                    f"model '{pendings[0].call.request.model}' gave output '{name}' the shape "
                    f"{format_shape(array.shape)}: "
                    f"{len(array) if array.ndim else 'no'} rows for {num_rows} rows of input, so that its first "
                    "dimension is no batch; set max_batch_size: 0 in its config.pbtxt"
                )

    def _wanted(self, pendings: Sequence[Pending]) -> Sequence[str]:
        asked: set[str] = set()
        for pending in pendings:
            if not pending.call.request.outputs:
                return self._outputs
            asked.update(output.name for output in pending.call.request.outputs)
        return [name for name in self._outputs if name in asked]


def _finish(
    pending: Pending, answer: dict[str, Array] | TriuneError, respond: Respond
) -> dict[str, Array] | InferenceResponse | TriuneError | Unfinished:
    if pending.call.finish is None or isinstance(answer, TriuneError) or pending.future.done():
        return answer
    try:
        return respond(pending, answer)
    except Exception as error:  # noqa: BLE001 - told and counted on the event loop, with the others'
        return Unfinished(error)


def result_of(answer: InferenceResponse | Unfinished) -> InferenceResponse:
    """A finished response. Raises what kept it from being finished."""
    if isinstance(answer, Unfinished):
        raise answer.error
    return answer


def num_elements(pendings: Sequence[Pending]) -> int:
    """Elements of all inputs of some requests: the size that their cost is estimated by."""
    return sum(array.size for pending in pendings for array in pending.call.inputs.values())


def join(pendings: Sequence[Pending], ragged: frozenset[str]) -> dict[str, Array]:
    """Stack the requests' inputs along the batch dimension; ragged ones are padded with zeros to the largest."""
    joined: dict[str, Array] = {}
    for name in pendings[0].call.inputs:
        arrays = [pending.call.inputs[name] for pending in pendings]
        if name in ragged and any(array.shape[1:] != arrays[0].shape[1:] for array in arrays):
            joined[name] = _pad_and_stack(arrays)
        else:
            joined[name] = np.concatenate(arrays)
    return joined


def _pad_and_stack(arrays: Sequence[Array]) -> Array:
    row_shape = np.max([array.shape[1:] for array in arrays], axis=0)
    fill = b"" if arrays[0].dtype == np.object_ else 0
    stacked = np.full((sum(len(array) for array in arrays), *row_shape), fill, arrays[0].dtype)
    begin = 0
    for array in arrays:
        end = begin + len(array)
        stacked[(slice(begin, end), *(slice(size) for size in array.shape[1:]))] = array
        begin = end
    return stacked


def part(
    pendings: Sequence[Pending], results: Mapping[str, Array], signature: Signature, ragged: frozenset[str]
) -> list[dict[str, Array]]:
    """Give each request its rows of the results (views), less the padding its ragged inputs were given.

    An output's dimension is cut where the model file gives it the name of a ragged input's dimension. Each has one row
    for each row of the requests.
    """
    specs = {spec.name: spec for spec in signature.outputs}
    answers: list[dict[str, Array]] = []
    begin = 0
    for pending in pendings:
        rows = slice(begin, begin + pending.call.batch_size)
        begin += pending.call.batch_size
        sizes = _ragged_sizes(pending, signature, ragged)
        answer: dict[str, Array] = {}
        for name, array in results.items():
            cuts = [slice(sizes.get(axis)) for axis in specs[name].axes[1:]] if sizes and name in specs else []
            answer[name] = array[(rows, *cuts)] if cuts else array[rows]
        answers.append(answer)
    return answers


def _ragged_sizes(pending: Pending, signature: Signature, ragged: frozenset[str]) -> dict[str | None, int]:
    sizes: dict[str | None, int] = {}
    for spec in signature.inputs:
        if spec.name in ragged and spec.name in pending.call.inputs:
            shape = pending.call.inputs[spec.name].shape
            sizes.update({axis: size for axis, size in zip(spec.axes[1:], shape[1:], strict=False) if axis})
    return sizes
