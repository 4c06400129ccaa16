"""Hashes of KV blocks: blocks with the same hash hold the keys and values of the same tokens in the same context."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import NewType

import numpy as np
from numpy.typing import NDArray

BlockHash = NewType("BlockHash", bytes)
"""The hash of a block, 16 bytes. Keys and values depend on all earlier tokens, so a block's hash includes that of the
block before it.
"""

_HASH_BYTES = 16


def block_hashes(tokens: Sequence[int], block_size: int, salt: bytes = b"") -> list[BlockHash]:
    """The hashes of the full blocks of a sequence. The last block has none if its tokens do not fill it.

    Args:
        tokens: the sequence's token ids, from its first.
        block_size: the number of tokens in a block.
        salt: identifies everything else that the keys and values depend on, such as the LoRA adapter. Sequences with
            different salts share no blocks.
    """
    ids = np.asarray(tokens, np.dtype("<i8"))
    parent: bytes = root_hash(salt)
    hashes: list[BlockHash] = []
    for begin in range(0, len(ids) - block_size + 1, block_size):
        hashes.append(next_hash(parent, ids[begin : begin + block_size]))
        parent = hashes[-1]
    return hashes


def root_hash(salt: bytes = b"") -> BlockHash:
    """The hash that serves as the parent of the first block's hash; `salt` as in `block_hashes`."""
    return BlockHash(blake2b(salt, digest_size=_HASH_BYTES).digest())


def next_hash(parent: bytes, tokens: Sequence[int] | NDArray[np.int64]) -> BlockHash:
    """The hash of a block: blake2b of the hash of the block before it and of the block's tokens as 64-bit integers."""
    data = parent + np.asarray(tokens, np.dtype("<i8")).tobytes()
    return BlockHash(blake2b(data, digest_size=_HASH_BYTES).digest())
