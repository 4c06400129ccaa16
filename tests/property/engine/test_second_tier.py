"""Whatever is evicted to files, read back, cancelled or restarted: each answer is the one that it is alone."""

import tempfile
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from property.engine.test_scheduler import BLOCK_SIZE, NUM_BLOCKS, STOP, VOCABULARY, Decoder, answer_alone
from support.examples import examples
from triune.core.clock import VirtualClock
from triune.core.datatypes import Array
from triune.engine.core import EngineCore
from triune.engine.kv import second_tier
from triune.engine.kv.second_tier import SecondTier, _ClosingTime
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.scheduler import SchedulerLimits
from triune.engine.sequence import Ending, FinishReason, Sequence

GREEDY = SamplingParameters(temperature=0)


class BlockDecoder(Decoder):
    """Its blocks can be read and written. Their content is their tokens."""

    num_blocks = NUM_BLOCKS
    block_size = BLOCK_SIZE

    def read_blocks(self, indices: Seq[int]) -> list[Array]:
        return [self.memory[list(indices)]]

    def write_blocks(self, indices: Seq[int], blocks: Seq[NDArray[Any]]) -> None:
        self.memory[list(indices)] = blocks[0]


prompts = st.lists(st.integers(0, 1), min_size=1, max_size=20)


@examples(60)
@given(
    runs=st.lists(
        st.lists(st.tuples(prompts, st.integers(1, 6), st.integers(0, 3), st.booleans()), max_size=8),
        min_size=1,
        max_size=3,
    ),
    num_files=st.integers(0, 40),
)
def test_answers_do_not_depend_on_where_blocks_were(
    runs: list[list[tuple[list[int], int, int, bool]]], num_files: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for asked in runs:
            decoder: Any = BlockDecoder()
            tier = SecondTier(decoder, Path(folder) / "key", num_files * (16 + BLOCK_SIZE * 8))
            limits = SchedulerLimits(step_tokens=7, sequences=4, context_tokens=26)
            engine = EngineCore(decoder, VOCABULARY, VirtualClock(), limits, second_tier=tier)
            sequences: list[Sequence] = []
            for prompt, max_tokens, num_steps, is_cancelled in asked:
                sequences.append(engine.add(prompt, GREEDY, Ending(max_tokens, frozenset({STOP}))))
                for _ in range(num_steps):
                    engine.step()
                    engine.check()
                if is_cancelled:
                    engine.cancel(sequences[-1])
            num_steps = 0
            while not engine.is_idle:
                engine.step()
                engine.check()
                num_steps += 1
                assert num_steps < 3000
            for sequence in sequences:
                if sequence.finish_reason is not FinishReason.CANCELLED:
                    alone = answer_alone(list(sequence.prompt), sequence.ending.max_tokens)
                    assert sequence.tokens[len(sequence.prompt) :] == alone
            engine.close()
            assert tier.disk.files.num_broken == 0
            assert np.issubdtype(decoder.memory.dtype, np.int64)
            # Beside the blocks lies the file by which servers lock the folder.
            assert len(list((Path(folder) / "key").glob("*.kv"))) <= num_files


def test_there_is_a_limit_of_time_to_write_blocks_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stored(seconds: float) -> int:
        time = _ClosingTime()
        time.spend(time.left - seconds)
        monkeypatch.setattr(second_tier, "_closing_time", time)
        decoder: Any = BlockDecoder()
        tier = SecondTier(decoder, tmp_path / f"{seconds}/key", 40 * (16 + BLOCK_SIZE * 8))
        engine = EngineCore(decoder, VOCABULARY, VirtualClock(), second_tier=tier)
        engine.add([1] * 4 * BLOCK_SIZE, GREEDY, Ending(1))
        while not engine.is_idle:
            engine.step()
        engine.close()
        return tier.disk.files.num_stored

    caplog.set_level("INFO")
    num_blocks = stored(2.0)
    assert num_blocks >= 4
    assert not caplog.records
    assert stored(-100.0) == 0
    assert f"last {num_blocks} of {num_blocks} blocks are not written to files: there are 2 s for that" in caplog.text
