"""How the tokens of a step are chosen where that fails."""

import gc
import weakref
from typing import Any

import numpy as np

from triune.core.errors import InvalidArgumentError
from triune.engine.choosing import choose
from triune.engine.kv.hashes import root_hash
from triune.engine.kv.pool import KVBlockPool
from triune.engine.kv.table import BlockTable
from triune.engine.plan import Piece, Plan
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.sampling.sampler import FAILED, SamplingState
from triune.engine.sequence import Ending, Sequence


class Stuck:
    """A matcher that finds no token."""

    is_ended = False

    def allowed(self, **given: Any) -> None:
        raise InvalidArgumentError("the answer cannot go on under its constraint")


def test_a_failed_sequence_keeps_neither_logits_nor_itself_in_memory() -> None:
    table = BlockTable(KVBlockPool(4), 4, root_hash())
    sequence = Sequence([1], table, SamplingState(SamplingParameters(), [1]), Ending(8), matcher=Stuck())  # type: ignore[arg-type]
    logits = np.zeros((1, 8), np.float32)
    gc.disable()
    try:
        assert choose(Plan((Piece(sequence, 0, 1, has_logits=True),)), logits) == [[FAILED]]
        assert isinstance(error := sequence.error, InvalidArgumentError)
        held = weakref.ref(logits)
        del sequence, logits
        assert held() is None
    finally:
        gc.enable()
    assert "cannot go on" in str(error)
