"""Runners run a batch: they concatenate the requests' inputs, run the model, and split the outputs."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from triune.core.clock import Clock, MonotonicClock
from triune.core.datatypes import Array
from triune.core.errors import InternalError, NotRunError, TriuneError, defect_of, no_memory
from triune.core.runtime import Executable
from triune.core.tensors import Signature, format_shape
from triune.core.units import Unit
from triune.scheduling.batch import Batch
from triune.scheduling.queue import Pending


class Runner(Protocol):
    """Runs one batch at a time, on its worker's thread."""

    @property
    def unit(self) -> Unit:
        """The unit that the batches run on."""
        ...

    @property
    def units(self) -> tuple[Unit, ...]:
        """All units that a batch runs on. There are several if the model is divided into segments."""
        ...

    @property
    def is_charging(self) -> bool:
        """Whether the runner itself charges the energy of its batches and takes turns on shared hardware."""
        ...

    @property
    def is_steady(self) -> bool:
        """Whether the time of a batch depends only on the shapes of its inputs. False if unknown."""
        ...

    def run(self, batch: Batch) -> None:
        """Run `batch`, and set its `answers` and times. Never raises: an error becomes the answer."""
        ...

    def interrupt(self) -> None:
        """Ask the running `run` to end soon, if the library can. May be called from any thread; does not wait."""
        ...

    def close(self) -> None:
        """Free all resources. No `run` may be running or follow."""
        ...


class TensorRunner:
    """The `Runner` for models that give one answer of tensors to each request.

    Attributes:
        executable: the compiled model; closed with the runner.
        unit: the unit that the batches run on.
        units: all units that the batches run on, which is only `unit`.
        is_charging: False, since the dispatcher charges energy and takes turns for this runner.
        is_steady: whether the time of a batch depends only on the shapes of its inputs.
        clock: the clock that measures the runs.
    """

    is_charging = False

    def __init__(self, executable: Executable, clock: Clock | None = None) -> None:
        """`clock` measures the runs; None means the monotonic clock."""
        self.executable = executable
        self.unit = executable.unit
        self.units: tuple[Unit, ...] = (executable.unit,)
        self.is_steady = executable.is_steady
        self.clock = clock or MonotonicClock()

    def run(self, batch: Batch) -> None:
        """Run `batch`: all requests at once, and one by one if that fails. Sets its `answers` and times."""
        batch.started_ns = self.clock.now_ns()
        answers = self._run(batch, batch.pendings)
        if len(batch.pendings) > 1 and not batch.is_given_up and any(isinstance(each, TriuneError) for each in answers):
            # One bad request, with an index out of range for example, makes the whole batch fail. So run each request
            # alone now.
            answers = [self._run(batch, [pending])[0] for pending in batch.pendings]
        batch.answers = answers

    def repeat(self, batch: Batch) -> None:
        """Run the inputs of `batch` once more and drop the outputs. Raises the errors of the executable."""
        self.executable.run(_inputs(batch, batch.pendings), _requested_outputs(batch, batch.pendings))

    def interrupt(self) -> None:
        """Ask the running `run` to end soon, if the library can."""
        self.executable.interrupt()

    def close(self) -> None:
        """Close the executable."""
        self.executable.close()

    def _compute(
        self, batch: Batch, pendings: Sequence[Pending], inputs: Mapping[str, Array], outputs: Sequence[str]
    ) -> dict[str, Array]:
        """Run the model on the concatenated inputs of some requests of a batch; returns its outputs by name. Raises the
        errors of the executable.
        """
        del batch, pendings
        return self.executable.run(inputs, outputs)

    def _run(self, batch: Batch, pendings: Sequence[Pending]) -> Sequence[dict[str, Array] | TriuneError]:
        batch.num_executions += 1
        is_joined = len(pendings) > 1
        begun_ns = joined_ns = batch.ended_ns or batch.started_ns
        try:
            inputs = _inputs(batch, pendings)
            if is_joined:
                joined_ns = self.clock.now_ns()
            results = self._compute(batch, pendings, inputs, _requested_outputs(batch, pendings))
            ran_ns = batch.ended_ns = self.clock.now_ns()
            answers: Sequence[dict[str, Array] | TriuneError] = (results,)
            if batch.has_rows:
                _check_rows(batch, pendings, results)
            if is_joined:
                answers = split(pendings, results, self.executable.signature, batch.ragged)
                batch.ended_ns = self.clock.now_ns()
            batch.input_ns += joined_ns - begun_ns
            batch.infer_ns += ran_ns - joined_ns
            batch.output_ns += batch.ended_ns - ran_ns
        except TriuneError as error:
            batch.ended_ns = self.clock.now_ns()
            if isinstance(error, NotRunError):
                batch.num_executions -= 1
            return [error] * len(pendings)
        except MemoryError:
            batch.ended_ns = self.clock.now_ns()
            return [no_memory(f"a request to model '{pendings[0].call.request.model}'")] * len(pendings)
        except BaseException as error:  # noqa: BLE001 - an unexpected error or a panic of a runtime must not end the worker
            batch.ended_ns = self.clock.now_ns()
            return [defect_of(f"model '{pendings[0].call.request.model}' failed", error)] * len(pendings)
        return answers


def _check_rows(batch: Batch, pendings: Sequence[Pending], results: Mapping[str, Array]) -> None:
    """Raise InternalError if an output does not have one row for each row of the requests."""
    num_rows = sum(pending.call.batch_size for pending in pendings)
    for name, array in results.items():
        if array.ndim == 0 or array.shape[0] != num_rows:
            batch.is_indivisible = batch.is_indivisible or len(pendings) > 1
            raise InternalError(
                f"model '{pendings[0].call.request.model}' gave output '{name}' the shape "
                f"{format_shape(array.shape)}: "
                f"{len(array) if array.ndim else 'no'} rows for {num_rows} rows of input, so that its first "
                "dimension is not a batch dimension; set max_batch_size: 0 in its config.pbtxt"
            )


def _inputs(batch: Batch, pendings: Sequence[Pending]) -> Mapping[str, Array]:
    return pendings[0].call.inputs if len(pendings) == 1 else concatenate(pendings, batch.ragged)


def _requested_outputs(batch: Batch, pendings: Sequence[Pending]) -> Sequence[str]:
    asked: set[str] = set()
    for pending in pendings:
        if not pending.call.request.outputs:
            return batch.outputs
        asked.update(output.name for output in pending.call.request.outputs)
    return [name for name in batch.outputs if name in asked]


def concatenate(pendings: Sequence[Pending], ragged: frozenset[str]) -> dict[str, Array]:
    """Concatenate the inputs of requests along the batch dimension.

    Rows of ragged inputs are padded with zeros to the size of the largest row.
    """
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


def split(
    pendings: Sequence[Pending], results: Mapping[str, Array], signature: Signature, ragged: frozenset[str]
) -> list[dict[str, Array]]:
    """Split the results into the rows of each request (views), without the padding of ragged inputs.

    A dimension of an output has the padding of a ragged input if the model file gives both dimensions the same name; it
    is then cut to the size of that input. Each result must have one row for each row of the requests.
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
