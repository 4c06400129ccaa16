"""Blocks of preempted sequences in memory: they come back, as long as copies pay and there is room."""

from collections.abc import Callable
from typing import Any

import pytest

from support.copying import SCRIPT, CopyingDecoder
from support.scripted import VOCAB
from triune.core.clock import VirtualClock
from triune.core.errors import InternalError
from triune.engine.core import EngineCore
from triune.engine.counters import EngineState
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.scheduler import SchedulerLimits
from triune.engine.sequence import Ending

US = 1000
NUM_PROMPT, LENGTH = 17, 24


class Timed(CopyingDecoder):
    """A token takes 100 us to compute. Copies take `copy_us`, and do what `on_copy` does. A block takes 64 bytes."""

    block_bytes = 64

    def __init__(self, clock: VirtualClock, copy_us: int, on_copy: Callable[[str], None] = lambda kind: None) -> None:
        super().__init__(num_blocks=36)
        self.clock, self.copy_us, self.on_copy = clock, copy_us, on_copy

    def run(self, step: Any) -> Any:
        self.clock.advance(100 * US * len(step.input_ids))
        return super().run(step)

    def read_blocks(self, indices: Any) -> Any:
        self.on_copy("out")
        self.clock.advance(self.copy_us * US)
        return super().read_blocks(indices)

    def write_blocks(self, indices: Any, blocks: Any) -> None:
        self.on_copy("in")
        super().write_blocks(indices, blocks)


def answered(preempted_bytes: int, copy_us: int, on_copy: Callable[[str], None] = lambda kind: None) -> EngineState:
    """What eight sequences leave behind, each with tokens of its own, in a cache that holds three of them whole."""
    clock = VirtualClock()
    decoder = Timed(clock, copy_us, on_copy)
    limits = SchedulerLimits(step_tokens=64)
    core = EngineCore(decoder, VOCAB, clock, limits, preempted_bytes=preempted_bytes)
    sequences = [
        core.add([65 + index] * NUM_PROMPT, SamplingParameters(temperature=0), Ending(LENGTH)) for index in range(8)
    ]
    for _ in range(1000):
        if core.is_idle:
            break
        core.step()
        core.check()
        core.pool.forget_cached()
    for each in sequences:
        assert each.tokens[NUM_PROMPT:] == [SCRIPT[at % len(SCRIPT)] for at in range(NUM_PROMPT, NUM_PROMPT + LENGTH)]
    state = core.state()
    assert state.num_preempted > 1
    return state


def test_quick_copies_take_the_place_of_computing_again() -> None:
    state = answered(1 << 20, copy_us=1)
    assert state.num_moved_out == state.num_preempted


def test_slow_copies_are_tried_once() -> None:
    assert answered(1 << 20, copy_us=1_000_000).num_moved_out == 1


def test_without_room_tokens_are_computed_again() -> None:
    assert answered(63, copy_us=1).num_moved_out == 0
    assert answered(0, copy_us=1).num_moved_out == 0


@pytest.mark.parametrize("kind", ["out", "in"])
def test_copies_that_fail_are_computed_again(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    def fail(now: str) -> None:
        if now == kind:
            raise InternalError("the memory is gone")

    answered(1 << 20, 1, fail)
    assert "computed again: the memory is gone" in caplog.text
