"""What everything that guesses tokens owes the engine, whatever it guesses by."""

from collections.abc import Callable
from typing import TypeAlias

import pytest

from support.scripted import VOCAB, ScriptedDecoder
from triune.engine.kv.hashes import root_hash
from triune.engine.kv.pool import KVBlockPool
from triune.engine.kv.table import BlockTable
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.sampling.sampler import SamplingState
from triune.engine.sequence import Ending, Sequence
from triune.engine.speculation.draft import DraftModel
from triune.engine.speculation.ngram import NgramProposer
from triune.engine.speculation.proposer import Proposer

TEXT = b"abcde"
"""What the sequences say again and again: both what was read before and a small model may know how it goes on."""


def broken() -> Proposer:
    decoder = ScriptedDecoder(TEXT)
    decoder.failure = RuntimeError("no more power")
    return DraftModel(decoder, 1000)


Maker: TypeAlias = Callable[[], Proposer]

MAKERS: dict[str, Maker] = {
    "ngram": NgramProposer,
    "draft model": lambda: DraftModel(ScriptedDecoder(TEXT), 1000),
    "draft model with few blocks": lambda: DraftModel(ScriptedDecoder(TEXT, num_blocks=7), 1000),
    "draft model that fails": broken,
}

GUESSING = {"ngram", "draft model"}
"""Those that can guess for three sequences at once."""


def of(length: int) -> Sequence:
    """A sequence of the text, which takes the most probable token."""
    tokens = text(0, length)
    table = BlockTable(KVBlockPool(1), 4, root_hash())
    return Sequence(tokens, table, SamplingState(SamplingParameters(temperature=0), tokens), Ending(100))


def text(begin: int, length: int) -> list[int]:
    return [TEXT[place % len(TEXT)] for place in range(begin, begin + length)]


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Maker:
    return MAKERS[request.param]


@pytest.mark.parametrize("name", sorted(GUESSING))
def test_what_goes_on_as_before_is_guessed(name: str) -> None:
    proposer = MAKERS[name]()
    sequences = [of(length) for length in (11, 14, 18)]
    for _ in range(4):
        guesses = proposer.propose(dict.fromkeys(sequences, 3))
        assert guesses == {each: text(len(each.tokens), 3) for each in sequences}
        proposer.check()
        for each in sequences:
            each.tokens += guesses[each][:2]


def test_it_guesses_for_those_who_ask_as_many_tokens_as_they_ask_at_most(make: Maker) -> None:
    proposer = make()
    sequences = [of(length) for length in (1, 2, 9, 13, 17)]
    others = [of(8), of(12)]
    proposer.propose(dict.fromkeys(others, 4))
    for turn in range(6):
        wanted = {each: 1 + (place + turn) % 5 for place, each in enumerate(sequences) if (place + turn) % 3}
        before = {each: list(each.tokens) for each in [*sequences, *others]}
        guesses = proposer.propose(wanted)
        assert guesses.keys() <= wanted.keys()
        for each, tokens in guesses.items():
            assert 1 <= len(tokens) <= wanted[each]
            assert all(0 <= token < VOCAB for token in tokens)
        assert {each: each.tokens for each in before} == before, "it changes nobody's tokens"
        proposer.check()
        for place, each in enumerate(sequences):
            # Of the guesses some are right, some are wrong, and some are not taken.
            taken = list(guesses.get(each, []))[: (place + turn) % 3]
            each.tokens += taken if turn % 2 else [(token + 1) % VOCAB for token in taken]
            each.tokens.append(ord("z"))
    proposer.check()


def test_what_is_forgotten_is_free_and_guessed_anew(make: Maker) -> None:
    proposer = make()
    sequences = [of(length) for length in (11, 14, 18)]
    first = proposer.propose(dict.fromkeys(sequences, 3))
    for each in sequences:
        proposer.forget(each)
        proposer.forget(each)
    proposer.forget(of(5))
    proposer.check()
    if isinstance(proposer, DraftModel):
        assert proposer.pool.num_used == 0
    assert proposer.propose(dict.fromkeys(sequences, 3)) == first
