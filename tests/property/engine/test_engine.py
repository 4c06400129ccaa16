"""Whatever clients ask for together, and whoever of them leaves, each of the others reads what it would read alone."""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from support.examples import examples
from support.scripted import ScriptedDecoder, scripted_engine
from triune.engine.generation import Generation
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.sequence import FinishReason

SCRIPT = b"abcabdabcabe"
CONTEXT = 4 * 6 + 1
"""As many tokens as the cache holds, and one."""


@dataclass(frozen=True)
class Client:
    """What a client asks for, and when it leaves.

    Attributes:
        num_prompt: tokens of its prompt.
        max_tokens: the most tokens of an answer.
        num_answers: the answers to its prompt.
        stop: a text that ends an answer; empty for none.
        leaves_after: the deltas after which it leaves; None if it stays.
        yields: how often it lets others run before it asks.
    """

    num_prompt: int
    max_tokens: int
    num_answers: int
    stop: str
    leaves_after: int | None
    yields: int

    def request(self) -> Generation:
        stop = (self.stop,) if self.stop else ()
        sampling = SamplingParameters(temperature=0)
        return Generation("x" * self.num_prompt, sampling, self.max_tokens, stop=stop, num_answers=self.num_answers)

    def expected(self) -> tuple[str, FinishReason]:
        whole = "".join(
            chr(SCRIPT[at % len(SCRIPT)]) for at in range(self.num_prompt, self.num_prompt + self.max_tokens)
        )
        found = whole.find(self.stop) if self.stop else -1
        return (whole, FinishReason.LENGTH) if found < 0 else (whole[:found], FinishReason.STOP)


@st.composite
def clients(draw: st.DrawFn) -> Client:
    num_prompt = draw(st.integers(1, CONTEXT - 1))
    return Client(
        num_prompt,
        draw(st.integers(1, CONTEXT - num_prompt)),
        draw(st.sampled_from([1, 1, 2, 3])),
        draw(st.sampled_from(["", "", "d", "ca", "cabe"])),
        draw(st.none() | st.integers(0, 4)),
        draw(st.integers(0, 5)),
    )


async def answers(engine_clients: list[Client], step_tokens: int, sequences: int) -> list[list[str] | None]:
    """The texts of each client's answers; None for those that left. The engine's own laws are checked at the end."""

    async def read(client: Client) -> list[str] | None:
        for _ in range(client.yields):
            await asyncio.sleep(0)
        texts, reasons, num_deltas = [""] * client.num_answers, {}, 0
        async with aclosing(engine.generate(client.request())) as deltas:
            async for delta in deltas:
                if num_deltas == client.leaves_after:
                    return None
                num_deltas += 1
                texts[delta.index] += delta.text
                reasons[delta.index] = delta.finish_reason
        assert set(reasons.values()) == {client.expected()[1]}
        return texts

    decoder = ScriptedDecoder(SCRIPT, num_blocks=6, block_size=4)
    async with scripted_engine(decoder, step_tokens=step_tokens, sequences=sequences) as engine:
        return await asyncio.wait_for(asyncio.gather(*map(read, engine_clients)), 60)


@examples(60)
@given(st.lists(clients(), min_size=1, max_size=8), st.integers(1, 20), st.integers(1, 8))
def test_each_client_reads_its_own_answers(asked: list[Client], step_tokens: int, sequences: int) -> None:
    found = asyncio.run(answers(asked, step_tokens, sequences))
    for client, texts in zip(asked, found, strict=True):
        if texts is not None:
            assert texts == [client.expected()[0]] * client.num_answers
