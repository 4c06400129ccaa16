"""An engine whose model repeats a fixed text: each token of an answer is the byte of the text at the token's
position.
"""

import math
import threading
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import decoders, models, pre_tokenizers

from triune.config.policy import QueueLimits
from triune.core.clock import Clock, MonotonicClock
from triune.core.datatypes import Array
from triune.core.decoder import DecoderStep, LogitsOnHost
from triune.core.power import Power
from triune.core.units import Unit
from triune.engine.core import EngineCore
from triune.engine.engine import Engine
from triune.engine.generation import Delta, Generation, Placement
from triune.engine.moving.transfers import Movable
from triune.engine.replicas.rates import Rates
from triune.engine.replicas.replica import Replica
from triune.engine.scheduler import SchedulerLimits
from triune.engine.speculation.proposer import Proposer
from triune.engine.text.side import TextSide
from triune.engine.weights.config import SpecialTokens
from triune.engine.weights.tokenizer.bytes import _BYTE_LETTERS
from triune.engine.weights.tokenizer.template import ChatTemplate
from triune.engine.weights.tokenizer.tokenizer import Tokenizer

EOS = 256
POISON = 0
"""After a sequence with this token, the logits are NaN."""

VOCAB = 260
"""Some ids more than the tokenizer has."""

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


class ScriptedDecoder(LogitsOnHost):
    """A `DecoderExecutable`.

    Attributes:
        steps: the steps that it has computed so far.
        gate: an event that each step waits for. If it is cleared, steps wait until it is set.
        entered: an event that is set when a step begins.
        failure: the error that a step raises; None for no error.
    """

    unit = Unit.CPU
    precision = "fp32"
    cache_form = "scripted"
    block_bytes = 1

    def __init__(self, script: bytes | Callable[[int], int], *, num_blocks: int = 64, block_size: int = 4) -> None:
        self.block_size = block_size
        self.num_blocks = num_blocks
        self.steps: list[DecoderStep] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.failure: Exception | None = None
        self.is_closed = False
        self._script = script if callable(script) else lambda position: script[position % len(script)]

    def run(self, step: DecoderStep) -> NDArray[np.float32]:
        self.entered.set()
        assert self.gate.wait(60)
        step.require_fitting(self.num_blocks, self.block_size)
        self.steps.append(step)
        if self.failure is not None:
            raise self.failure
        logits = np.zeros((len(step.logits_indices), VOCAB), np.float32)
        for row, index in enumerate(step.logits_indices):
            logits[row, self._script(int(step.position_ids[index]) + 1)] = 20
            if step.input_ids[index] == POISON:
                logits[row] = np.nan
        return logits

    def allocate(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks

    def read_blocks(self, indices: Sequence[int]) -> Sequence[Array]:
        raise NotImplementedError

    def write_blocks(self, indices: Sequence[int], blocks: Sequence[Array]) -> None:
        raise NotImplementedError

    def read_tokens(self, blocks: Sequence[int], num_tokens: int) -> Sequence[NDArray[np.float32]]:
        raise NotImplementedError

    def write_tokens(self, blocks: Sequence[int], tokens: Sequence[NDArray[np.float32]]) -> None:
        raise NotImplementedError

    def copy_blocks(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self.is_closed = True


def byte_tokenizer() -> Tokenizer:
    """A tokenizer whose tokens are the 256 bytes and <eos>."""
    vocab = dict(_BYTE_LETTERS)
    backend = tokenizers.Tokenizer(models.BPE(vocab, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<eos>"])
    return Tokenizer(backend, SpecialTokens(eos=(EOS,)), VOCAB, "scripted")


@asynccontextmanager
async def scripted_engine(
    decoder: ScriptedDecoder,
    *,
    clock: Clock | None = None,
    max_waiting: int = 64,
    max_seconds: float = 60,
    can_chat: bool = True,
    proposer: Proposer | None = None,
    run_limit_seconds: float = math.inf,
    weights_key: bytes = b"",
    **limits: int,
) -> AsyncIterator[Engine]:
    """An engine that uses the decoder. It is closed at the end, when all blocks must be free or cached."""
    clock = clock or MonotonicClock()
    core = EngineCore(decoder, VOCAB, clock, SchedulerLimits(**limits), proposer)
    template = ChatTemplate(TEMPLATE, {}) if can_chat else None
    placement = Placement(Unit.CPU, "scripted", "fp32", "the test wants it")
    engine = Engine(
        [Replica(core, placement, Rates(512), max_answers=SchedulerLimits(**limits).sequences)],
        TextSide.of(byte_tokenizer(), template, VOCAB),
        clock,
        name="scripted",
        limits=QueueLimits(max_waiting, max_seconds),
        close_decoder=decoder.close,
        run_limit_seconds=run_limit_seconds,
        movable=Movable.of(weights_key, decoder) if weights_key else None,
    )
    try:
        yield engine
    finally:
        decoder.gate.set()
        await engine.close()
        assert decoder.is_closed
        assert core.is_idle
        assert engine.state.num_used_blocks == 0
        assert engine.statistics.num_pending == engine.statistics.num_waiting == 0
        core.check()


@asynccontextmanager
async def replicated_engine(
    decoders: Mapping[Unit, ScriptedDecoder],
    *,
    clock: Clock | None = None,
    rates: Mapping[Unit, Rates] | None = None,
    emulated: Collection[Unit] = (),
    power: Power | None = None,
    run_limit_seconds: float = math.inf,
    **limits: int,
) -> AsyncIterator[Engine]:
    """An engine with a replica for each unit. It is closed at the end, when all blocks must be free or cached."""
    clock = clock or MonotonicClock()
    replicas = [
        Replica(
            EngineCore(decoder, VOCAB, clock, SchedulerLimits(**limits)),
            Placement(unit, "scripted", "fp32", "the test wants it"),
            (rates or {}).get(unit) or Rates(512),
            max_answers=SchedulerLimits(**limits).sequences,
            is_emulated=unit in emulated,
        )
        for unit, decoder in decoders.items()
    ]
    engine = Engine(
        replicas,
        TextSide.of(byte_tokenizer(), None, VOCAB),
        clock,
        name="scripted",
        limits=QueueLimits(64, 60),
        close_decoder=lambda: [each.close() for each in decoders.values()][-1],
        run_limit_seconds=run_limit_seconds,
        power=power,
    )
    try:
        yield engine
    finally:
        for each in decoders.values():
            each.gate.set()
        await engine.close()
        assert engine.statistics.num_pending == engine.statistics.num_waiting == 0
        for replica in replicas:
            assert not replica.jobs
            assert (replica.outlook().num_prompt_tokens, replica.outlook().num_left) == (0, 0)
            if replica.thread.failure is None:
                assert replica.core.is_idle
                assert replica.core.pool.num_used == 0
                replica.core.check()


async def text_of(engine: Engine, request: Generation) -> str:
    """Generate, and return the text of the only answer."""
    return "".join([delta.text async for delta in engine.generate(request)])


async def answers_of(engine: Engine, request: Generation) -> list[tuple[str, Delta]]:
    """Generate, and return the text and the last delta of each answer."""
    texts, last = [""] * request.num_answers, {}
    async for delta in engine.generate(request):
        texts[delta.index] += delta.text
        last[delta.index] = delta
    return [(text, last[index]) for index, text in enumerate(texts)]
