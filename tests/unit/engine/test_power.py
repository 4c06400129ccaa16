"""What a power mode changes at the engine: the tokens of a step."""

import pytest

from support.scripted import VOCAB, ScriptedDecoder
from triune.core.clock import VirtualClock
from triune.core.power import EFFECTS, Power, PowerMode
from triune.engine.core import EngineCore
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.scheduler import SchedulerLimits
from triune.engine.sequence import Ending


@pytest.mark.parametrize("mode", list(PowerMode))
def test_a_step_has_the_modes_share_of_tokens(mode: PowerMode) -> None:
    decoder = ScriptedDecoder(b"answer")
    core = EngineCore(decoder, VOCAB, VirtualClock(), SchedulerLimits(step_tokens=32), power=Power(mode))
    core.add([100] * 100, SamplingParameters(temperature=0), Ending(1))
    while not core.is_idle:
        core.step()
    sizes = [len(step.input_ids) for step in decoder.steps]
    assert max(sizes) == 32 * EFFECTS[mode].step_share
    assert sum(sizes) == 100


def test_the_mode_may_change_while_a_prompt_is_read() -> None:
    decoder, power = ScriptedDecoder(b"answer"), Power()
    core = EngineCore(decoder, VOCAB, VirtualClock(), SchedulerLimits(step_tokens=32), power=power)
    core.add([100] * 100, SamplingParameters(temperature=0), Ending(3))
    core.step()
    power.ask(PowerMode.LOW_POWER)
    core.step()
    power.ask(PowerMode.HIGH_PERFORMANCE)
    core.step()
    assert [len(step.input_ids) for step in decoder.steps] == [32, 8, 32]
    while not core.is_idle:
        core.step()
    core.check()
