"""The encoder takes turns with other models on its hardware."""

import threading
import time
from collections.abc import Mapping, Sequence

import numpy as np

from triune.arbiter.arbiter import Arbiter
from triune.arbiter.blocking import BlockingShare
from triune.core.clock import VirtualClock
from triune.core.datatypes import Array, DataType
from triune.core.tensors import Signature, TensorSpec
from triune.core.units import Unit
from triune.engine.speech.encoder import SpeechEncoder


class Zeros:
    """An executable that notes whether it ran, and gives zeros."""

    unit = Unit.CPU
    signature = Signature(
        [TensorSpec("input_features", DataType.FP32, (1, 80, 3000))], [TensorSpec("keys", DataType.FP32, (1, 4))]
    )

    def __init__(self) -> None:
        self.num_runs = 0
        self.is_closed = False

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        self.num_runs += 1
        return {name: np.zeros((1, 4), np.float32) for name in outputs}

    def close(self) -> None:
        self.is_closed = True


def test_a_window_waits_until_another_model_has_computed() -> None:
    clock = VirtualClock()
    arbiter = Arbiter(clock)
    # With different weights one model computes at a time.
    other = BlockingShare(arbiter, clock, "other", Unit.CPU, 2.0)
    executable = Zeros()
    encoder = SpeechEncoder(executable, 80)  # type: ignore[arg-type]
    encoder.take_turns(BlockingShare(arbiter, clock, "speech", Unit.CPU))
    other.begin()
    window = threading.Thread(target=encoder.memory, args=[np.zeros(16000, np.float32)])
    window.start()
    pool = arbiter.pools[Unit.CPU]
    deadline = time.monotonic() + 60
    while not pool.waiting and time.monotonic() < deadline:
        time.sleep(0.001)
    assert pool.waiting
    assert executable.num_runs == 0
    other.end(1, has_more=False)
    window.join(60)
    assert executable.num_runs == 1
    assert not pool.running
    encoder.close()
    assert executable.is_closed
    assert [each.name for each in pool.shares] == ["other"]
