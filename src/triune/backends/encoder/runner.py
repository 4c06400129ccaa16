"""Run batches of texts through an encoder."""

import numpy as np

from triune.config.encoder import COUNT_OUTPUT, TEXT_INPUT
from triune.core.clock import Clock
from triune.core.datatypes import Array
from triune.core.errors import TriuneError, defect_of, no_memory
from triune.core.runtime import Executable
from triune.engine.encoder import Ids, TextEncoder
from triune.engine.encoder_steps import StepSize
from triune.scheduling.batch import Batch


class EncoderRunner:
    """The `Runner` of encoders: it tokenizes the texts of all requests of a batch, computes them together, and divides
    the rows of the result among the requests. A request with a text that cannot be read gets the error; the others are
    computed.

    Attributes:
        unit: the unit that the batches run on.
        units: all units that the batches run on, which is only `unit`.
        is_charging: whether the runner itself records the energy of its batches: False, since the dispatcher does.
        is_steady: False, since the time of a batch depends on the lengths of its texts.
    """

    is_charging = False
    is_steady = False

    def __init__(
        self, executable: Executable, encoder: TextEncoder, output: str, steps: StepSize, clock: Clock
    ) -> None:
        """Args:
        executable: the compiled graph, in the packed form; closed with the runner.
        encoder: tokenizes texts, and names the graph's output.
        output: the output's name in answers.
        steps: records how long tokens take.
        clock: the clock that measures the runs.
        """
        self.unit = executable.unit
        self.units = (executable.unit,)
        self._executable = executable
        self._encoder = encoder
        self._output = output
        self._steps = steps
        self._clock = clock

    def run(self, batch: Batch) -> None:
        """Implements `Runner.run`."""
        batch.started_ns = self._clock.now_ns()
        read = [self._read(pending.call.inputs[TEXT_INPUT]) for pending in batch.pendings]
        read_ns = self._clock.now_ns()
        batch.input_ns += read_ns - batch.started_ns
        texts = [text for each in read if not isinstance(each, TriuneError) for text in each]
        answers = self._answers(batch, read, texts)
        batch.ended_ns = self._clock.now_ns()
        batch.infer_ns += batch.ended_ns - read_ns
        batch.answers = answers

    def interrupt(self) -> None:
        """Implements `Runner.interrupt`."""
        self._executable.interrupt()

    def close(self) -> None:
        """Implements `Runner.close`."""
        self._executable.close()

    def _read(self, texts: Array) -> list[Ids] | TriuneError:
        try:
            return self._encoder.read(list(texts))
        except BaseException as error:  # noqa: BLE001 - one request's texts must not fail the other requests
            return _typed(error)

    def _answers(
        self, batch: Batch, read: list[list[Ids] | TriuneError], texts: list[Ids]
    ) -> list[dict[str, Array] | TriuneError]:
        if not texts:
            return [each for each in read if isinstance(each, TriuneError)]
        batch.num_executions += 1
        begun_ns = self._clock.now_ns()
        try:
            rows = self._encoder.compute(self._executable, texts)
        except BaseException as error:  # noqa: BLE001 - an unexpected error or a panic of a runtime must not end the worker
            failure = _typed(error)
            return [each if isinstance(each, TriuneError) else failure for each in read]
        self._steps.record(self.unit, sum(map(len, texts)), self._clock.now_ns() - begun_ns)
        answers: list[dict[str, Array] | TriuneError] = []
        begin = 0
        for each in read:
            if isinstance(each, TriuneError):
                answers.append(each)
                continue
            counts = np.array([len(text) for text in each], np.int32)
            answers.append({self._output: rows[begin : begin + len(each)], COUNT_OUTPUT: counts})
            begin += len(each)
        return answers


def _typed(error: BaseException) -> TriuneError:
    if isinstance(error, TriuneError):
        return error
    if isinstance(error, MemoryError):
        return no_memory("a batch of texts")
    return defect_of("the model failed", error)
