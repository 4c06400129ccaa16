"""What followed the same tokens before."""

import numpy as np
import pytest

from triune.engine.kv.hashes import root_hash
from triune.engine.kv.pool import KVBlockPool
from triune.engine.kv.table import BlockTable
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.sampling.sampler import SamplingState
from triune.engine.sequence import Ending, Sequence
from triune.engine.speculation.ngram import _WINDOW, NgramProposer, continuation


def of(tokens: list[int], count: int = 3) -> list[int]:
    return continuation(np.array(tokens, np.int32), count)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([1, 2, 3, 4, 5, 1, 2], [3, 4, 5]),
        ([1, 2, 3, 1, 2, 9, 8, 7, 1, 2], [9, 8, 7]),  # the latest of equal ones
        ([5, 1, 2, 3, 4, 4, 6, 1, 2, 9, 9, 9, 5, 1, 2], [3, 4, 4]),  # the longer agreement
        ([1, 2, 1, 2], [1, 2, 1]),  # a circle
        ([7, 7, 7], [7, 7, 7]),
        ([1, 2, 3, 4, 5, 9, 2], []),
        ([1, 2], []),
        ([1], []),
    ],
    ids=str,
)
def test_a_text_goes_on_as_before(tokens: list[int], expected: list[int]) -> None:
    assert of(tokens) == expected


def test_a_long_text_is_searched_in_its_latest_part() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 50_000, 3 * _WINDOW).tolist()
    table = BlockTable(KVBlockPool(1), 4, root_hash())
    sequence = Sequence([1], table, SamplingState(SamplingParameters(), [1]), Ending(10))
    proposer = NgramProposer()
    sequence.tokens = tokens[:100]
    for token in tokens[100:]:
        sequence.tokens.append(token)
        if len(sequence.tokens) % 7 == 0:
            proposer.propose({sequence: 2})
    sequence.tokens += sequence.tokens[-_WINDOW + 4 : -_WINDOW + 6]
    assert proposer.propose({sequence: 2}) == {sequence: sequence.tokens[-_WINDOW + 4 :][:2]}
    sequence.tokens += sequence.tokens[100:102]
    assert proposer.propose({sequence: 2}) == {}, "it is not remembered"
    proposer.forget(sequence)
    proposer.forget(sequence)
