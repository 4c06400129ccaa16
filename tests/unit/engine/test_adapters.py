"""The adapters of an engine: their numbers, and the salts of blocks."""

import itertools

import pytest

from triune.core.errors import InvalidArgumentError
from triune.engine.adapters import KnownAdapters

ADAPTERS = KnownAdapters({"legal": b"1" * 16, "poems": b"2" * 16})


def test_numbers_are_those_of_the_graph() -> None:
    assert [ADAPTERS.number(each) for each in (None, "", "legal", "poems")] == [0, 0, 1, 2]
    assert [ADAPTERS.name(each) for each in range(3)] == [None, "legal", "poems"]
    with pytest.raises(InvalidArgumentError, match="the LoRA adapter 'verse' is unknown; this model has legal, poems"):
        ADAPTERS.number("verse")
    with pytest.raises(InvalidArgumentError, match="this model has none"):
        KnownAdapters({}).number("legal")


def test_sequences_share_blocks_only_with_the_same_adapter_text_and_salt() -> None:
    salts = [
        ADAPTERS.salt(number, salt, source)
        for number, salt, source in itertools.product(range(3), (b"", b"memory"), ((), (1,), (1, 2)))
    ]
    assert len(set(salts)) == len(salts)
    # The model as it is, without anything else, has none: blocks that were stored before there were adapters are found.
    assert ADAPTERS.salt(0, b"", ()) == b""
    # After a restart with more adapters, an adapter with another number finds its blocks.
    assert KnownAdapters({"new": b"3" * 16, "legal": b"1" * 16}).salt(2, b"", (1,)) == ADAPTERS.salt(1, b"", (1,))
