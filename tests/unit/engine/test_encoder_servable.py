"""Requests of texts take turns on a unit, in the order in which a test lets their steps end."""

import asyncio
import threading
from collections.abc import Mapping, Sequence

import numpy as np

from support.scripted import VOCAB, byte_tokenizer
from triune.backends.encoder.runner import EncoderRunner
from triune.config.encoder import COUNT_OUTPUT, EMBEDDING_OUTPUT, PART_TEXTS
from triune.config.policy import BatchingPolicy
from triune.core.clock import VirtualClock
from triune.core.datatypes import Array, DataType
from triune.core.statistics import ModelStatistics
from triune.core.tensors import Signature, TensorSpec
from triune.core.units import Unit
from triune.engine.encoder import TextEncoder
from triune.engine.encoder_servable import EncoderServable
from triune.engine.encoder_steps import MAX_TOKENS, StepSize
from triune.engine.generation import Placement
from triune.scheduling.dispatcher import Dispatcher
from triune.scheduling.worker import ThreadWorker


class Held:
    """An encoder whose runs end one by one: a text's embedding is the number of its tokens.

    Attributes:
        runs: the tokens of the texts of each run.
    """

    unit = Unit.CPU
    precision = "fp32"
    is_steady = True
    signature = Signature(
        (TensorSpec("lengths", DataType.INT64, (-1,)),), (TensorSpec("sentence_embedding", DataType.FP32, (-1, 1)),)
    )

    def __init__(self) -> None:
        self.runs: list[list[int]] = []
        self.may_end = threading.Semaphore(0)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        self.runs.append(inputs["lengths"].tolist())
        assert self.may_end.acquire(timeout=60)
        return {name: inputs["lengths"].astype(np.float32)[:, np.newaxis] for name in outputs}

    async def next_run(self) -> list[int]:
        """End the running run, and wait for the next one."""
        count = len(self.runs)
        self.may_end.release()
        return await self.run_number(count)

    async def run_number(self, number: int) -> list[int]:
        while len(self.runs) <= number:
            await asyncio.sleep(0)
        return self.runs[number]

    def interrupt(self) -> None:
        pass

    def close(self) -> None:
        self.may_end.release()


def serve(executable: Held) -> EncoderServable:
    clock, steps = VirtualClock(), StepSize([Unit.CPU])
    encoder = TextEncoder(byte_tokenizer(), 256, VOCAB, "sentence_embedding", 1)
    computing = Dispatcher(
        "m",
        1,
        BatchingPolicy(max_batch_size=PART_TEXTS, is_dynamic=True, is_fair=True),
        (EMBEDDING_OUTPUT, COUNT_OUTPUT),
        [ThreadWorker(EncoderRunner(executable, encoder, EMBEDDING_OUTPUT, steps, clock), "m")],
        ModelStatistics(),
        clock,
        max_elements=steps.num_tokens,
    )
    placements = [Placement(Unit.CPU, "test", "fp32", "it is the only one")]
    return EncoderServable(computing, encoder, steps, placements, EMBEDDING_OUTPUT, "m", 1)


async def test_a_short_text_waits_for_the_step_that_runs_and_for_no_other() -> None:
    executable = Held()
    servable = serve(executable)
    large = [asyncio.ensure_future(servable.embed([[3] * 100] * 40))]
    assert await executable.run_number(0) == [100] * 10, "a request alone has the largest steps"
    large += [asyncio.ensure_future(servable.embed([[3] * 100] * 40)) for _ in range(2)]
    while servable.statistics.num_pending < 2 * len(large):
        await asyncio.sleep(0)
    for _ in large:
        # They were parted before.
        assert await executable.next_run() in ([100] * 10, [100] * 5)
    for number in range(1, 4):
        short = [asyncio.ensure_future(servable.embed(["a cat"])) for _ in range(number)]
        await asyncio.sleep(0)
        assert await executable.next_run() == [5] * number, "short texts run together, and no large part with them"
        assert await executable.next_run() == [100] * 5
        assert [count for _, count in await asyncio.gather(*short)] == [5] * number
    for _ in range(30):
        executable.may_end.release()
    answers = await asyncio.gather(*large)
    assert [(rows.sum(), count) for rows, count in answers] == [(4000, 4000)] * 3
    assert sum(map(len, executable.runs)) == 3 * 40 + 6
    await servable.close()


async def test_large_requests_take_turns() -> None:
    executable = Held()
    servable = serve(executable)
    first = asyncio.ensure_future(servable.embed([[3] * 100] * 100))
    await executable.run_number(0)
    second = asyncio.ensure_future(servable.embed([[3] * 101] * 10))
    while servable.statistics.num_pending < 4:
        await asyncio.sleep(0)
    while not second.done():
        await executable.next_run()
    places = [place for place, run in enumerate(executable.runs) if run == [101] * 5]
    assert places[0] <= 2, "one step of the first request runs, and one waited before"
    assert places[1] <= 5, "of its other steps few go before the second request's last one"
    assert not first.done()
    for _ in range(30):
        executable.may_end.release()
    assert (await first)[1] == 10_000
    await servable.close()


async def test_ids_and_texts_of_more_than_a_step_are_parted() -> None:
    executable = Held()
    servable = serve(executable)
    for _ in range(60):
        executable.may_end.release()
    await asyncio.gather(servable.embed([[3] * 200] * 40), servable.embed(["word " * 40] * 40))
    assert max(map(sum, executable.runs)) <= MAX_TOKENS
    await servable.close()
