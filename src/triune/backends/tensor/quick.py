"""Find out whether a model is so fast that the event loop's thread should run it."""

from collections.abc import Mapping
from statistics import median

from triune.config.model_config import ModelConfig
from triune.config.samples import sample_inputs
from triune.core.clock import Clock
from triune.core.datatypes import Array, DataType
from triune.core.errors import InvalidArgumentError
from triune.core.runtime import Executable

INLINE_LIMIT_NS = 100_000
"""A model runs on the event loop's thread if its run takes less than this, in ns: about the time of passing a batch to
a worker thread and back, including the event loop's part.
"""

_NUM_RUNS = 15
_NUM_ROUNDS = 3


def is_quick(config: ModelConfig, executable: Executable, clock: Clock) -> bool:
    """Whether a run takes less time than switching to another thread, so that the event loop's thread should run the
    model.

    The conditions: there is only one executable; its run time does not depend on the inputs' values; only the batch
    dimension is free, and no input is optional (the sample would lack it); every output has one row for each input row;
    and the median time for the largest batch of sample input is below INLINE_LIMIT_NS. If the model refuses its sample
    input, its time is unknown, and the result is False.
    """
    if len(config.units) > 1 or config.num_instances > 1 or not executable.is_steady:
        return False
    if any(
        -1 in tensor.dims or tensor.datatype is DataType.BYTES or tensor.is_optional
        for tensor in config.inputs.values()
    ):
        return False
    num_rows = config.batching.max_batch_size
    try:
        inputs = sample_inputs(config, max(num_rows, 1))
        started_ns = clock.now_ns()
        found = executable.run(inputs, list(config.outputs))
        if clock.now_ns() - started_ns > 1000 * INLINE_LIMIT_NS:
            return False
        # Check here that outputs have a row for each input row: for models on the event loop's thread no one checks it
        # later.
        if num_rows and any(array.shape[:1] != (num_rows,) for array in found.values()):
            return False
        # It is enough that one of a few rounds is fast: other work on the machine may have slowed down the others.
        return any(_round_ns(config, executable, inputs, clock) < INLINE_LIMIT_NS for _ in range(_NUM_ROUNDS))
    except InvalidArgumentError:
        return False


def _round_ns(config: ModelConfig, executable: Executable, inputs: Mapping[str, Array], clock: Clock) -> float:
    """The median time of `_NUM_RUNS` runs, in ns. A run of more than ten times INLINE_LIMIT_NS ends the round, and its
    time is the result.
    """
    durations_ns: list[int] = []
    while len(durations_ns) < _NUM_RUNS:
        started_ns = clock.now_ns()
        executable.run(inputs, list(config.outputs))
        durations_ns.append(clock.now_ns() - started_ns)
        if durations_ns[-1] > 10 * INLINE_LIMIT_NS:
            break
    return median(durations_ns) if len(durations_ns) == _NUM_RUNS else durations_ns[-1]
