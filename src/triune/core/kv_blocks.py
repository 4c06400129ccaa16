"""Converts keys and values between the blocks of a cache and tokens, and checks whether they fit a decoder's cache."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError


def tokens_of(blocks: Array, num_tokens: int) -> NDArray[np.float32]:
    """Return the first tokens in blocks [blocks, heads, block size, head size] as FP32 [tokens, heads, head size]."""
    count, heads, block_size, size = blocks.shape
    return blocks.swapaxes(1, 2).reshape(count * block_size, heads, size)[:num_tokens].astype(np.float32)


def blocks_of(tokens: NDArray[np.float32], num_blocks: int, block_size: int) -> NDArray[np.float32]:
    """Put tokens, FP32 [tokens, heads, head size] and at least one, into blocks [num_blocks, heads, block_size, head
    size].

    The last token is repeated until the blocks are full: unlike zeros, it does not widen the range of a block whose
    values are quantized.

    Raises:
        InvalidArgumentError: the blocks cannot hold so many tokens.
    """
    missing = num_blocks * block_size - len(tokens)
    if missing < 0:
        raise InvalidArgumentError(
            f"{len(tokens)} tokens are to be written to {num_blocks} blocks of {block_size}, which hold "
            f"{num_blocks * block_size}"
        )
    filled = np.concatenate([tokens, np.repeat(tokens[-1:], missing, axis=0)])
    return filled.reshape(num_blocks, block_size, *tokens.shape[1:]).swapaxes(1, 2)


def checked_tokens(
    tokens: Sequence[NDArray[np.float32]], heads: Sequence[tuple[int, int]]
) -> Sequence[NDArray[np.float32]]:
    """Return `tokens` if they are one array [tokens, heads, head size] for each (heads, head size) in `heads`.

    Raises:
        InvalidArgumentError: the arrays have other shapes, or there are no tokens.
    """
    given = [each.shape for each in tokens]
    if not given or not given[0][0] or given != [(given[0][0], *each) for each in heads]:
        raise InvalidArgumentError(
            f"tokens to write are arrays of the shapes {given}; this model has [tokens, heads, size] of "
            f"{[['tokens', *each] for each in heads]}, and at least one token"
        )
    return tokens


def checked_blocks(indices: Sequence[int], blocks: Sequence[Array], caches: Sequence[Array]) -> Sequence[Array]:
    """Return `blocks` if they can be written to `caches` at `indices`.

    Raises:
        InvalidArgumentError: the blocks have another number, shape or type than the caches need.
    """
    wanted = [((len(indices), *cache.shape[1:]), cache.dtype) for cache in caches]
    given = [(block.shape, block.dtype) for block in blocks]
    if given != wanted:
        which = next((i for i, (a, b) in enumerate(zip(given, wanted, strict=False)) if a != b), None)
        found = (
            f"{len(given)} arrays; there are {len(wanted)} caches"
            if which is None
            else f"{given[which][1]}{list(given[which][0])} for cache {which}, which takes {wanted[which][1]}"
            f"{list(wanted[which][0])}"
        )
        raise InvalidArgumentError(f"blocks to write are {found}: they are of another model or form of cache")
    return blocks
