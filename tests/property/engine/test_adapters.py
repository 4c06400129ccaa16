"""Whatever shares a cache, a step reads for each sequence only keys and values that its own adapter computed."""

from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from support.examples import examples
from support.scripted import VOCAB, ScriptedDecoder
from triune.core.clock import VirtualClock
from triune.core.decoder import DecoderStep
from triune.engine.core import EngineCore
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.scheduler import SchedulerLimits
from triune.engine.sequence import Ending, Sequence
from triune.engine.speculation.ngram import NgramProposer

NAMES = [None, "poet", "lawyer"]
GREEDY = SamplingParameters(temperature=0)
NUM_BLOCKS, BLOCK = 8, 4


def following(tokens: list[int], adapter: int) -> int:
    """The next token: of few, so that blocks are shared and guesses are right at times."""
    return (sum(tokens) + adapter * len(tokens)) % 3


class Remembering(ScriptedDecoder):
    """Its cache holds tokens, each with the adapter that computed it; its answer follows from what it reads there."""

    def __init__(self) -> None:
        super().__init__(b"x", num_blocks=NUM_BLOCKS, block_size=BLOCK)
        self.cache: list[tuple[int, int] | None] = [None] * (NUM_BLOCKS * BLOCK)

    def run(self, step: DecoderStep) -> NDArray[np.float32]:
        step.require_fitting(NUM_BLOCKS, BLOCK)
        adapters = np.zeros(len(step.input_ids), int) if step.adapters is None else step.adapters
        logits = np.zeros((len(step.input_ids), VOCAB), np.float32)
        for which, past in enumerate(step.past_lengths.tolist()):
            begin, end = step.subsequence_begins[which : which + 2]
            first = step.block_indices_begins[which]
            for row in range(begin, end):
                length = past + row - begin + 1
                slots = [int(step.block_indices[first + at // BLOCK]) * BLOCK + at % BLOCK for at in range(length)]
                self.cache[slots[-1]] = int(step.input_ids[row]), int(adapters[row])
                read = [self.cache[slot] for slot in slots]
                assert all(each is not None and each[1] == adapters[row] for each in read)
                logits[row, following([each[0] for each in read if each], int(adapters[row]))] = 20
        return logits[step.logits_indices]


@dataclass(frozen=True)
class Asked:
    """A request. `steps`: how many steps run before the next one comes. `leaves`: whether it is cancelled then."""

    prompt: list[int]
    max_tokens: int
    adapter: int
    steps: int
    leaves: bool

    def expected(self) -> list[int]:
        tokens = list(self.prompt)
        for _ in range(self.max_tokens):
            tokens.append(following(tokens, self.adapter))
        return tokens


requests = st.builds(
    Asked,
    st.lists(st.integers(0, 1), min_size=1, max_size=14),
    st.integers(1, 8),
    st.integers(0, 2),
    st.integers(0, 3),
    st.sampled_from([False, False, False, True]),
)


@examples(150)
@given(st.lists(requests, min_size=1, max_size=12), st.integers(1, 24), st.booleans())
def test_sequences_read_only_what_their_adapter_computed(asked: list[Asked], step_tokens: int, guesses: bool) -> None:
    digests = {name: name.encode() for name in NAMES if name is not None}
    engine = EngineCore(
        Remembering(),
        VOCAB,
        VirtualClock(),
        SchedulerLimits(step_tokens=step_tokens),
        NgramProposer() if guesses else None,
        adapters=digests,
    )
    sequences: list[Sequence] = []
    for each in asked:
        sequences.append(engine.add(each.prompt, GREEDY, Ending(each.max_tokens), adapter=NAMES[each.adapter]))
        for _ in range(each.steps):
            engine.step()
        if each.leaves:
            engine.cancel(sequences[-1])
    for _ in range(1000):
        if engine.is_idle:
            break
        engine.step()
        engine.check()
    assert engine.is_idle
    assert [sequence.error for sequence in sequences] == [None] * len(asked)
    for sequence, each in zip(sequences, asked, strict=True):
        if not each.leaves:
            assert sequence.tokens == each.expected()
