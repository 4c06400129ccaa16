"""The pool of KV blocks: who holds what, what is found again, and what is given away first."""

import pytest

from triune.core.errors import InternalError
from triune.engine.kv.hashes import BlockHash, block_hashes, next_hash, root_hash
from triune.engine.kv.pool import KVBlockPool
from triune.engine.kv.table import BlockTable


def table(pool: KVBlockPool, tokens: list[int], block_size: int = 4) -> BlockTable:
    """A sequence whose tokens are all in the cache."""
    made = BlockTable(pool, block_size, root_hash())
    made.share(block_hashes(tokens, block_size))
    assert made.grow(len(tokens))
    made.write(tokens)
    pool.check()
    return made


def test_a_hash_tells_the_tokens_before_and_the_salt() -> None:
    first = block_hashes([1, 2, 3, 4, 5], 2)
    assert len(first) == 2, "the last token does not fill a block"
    assert block_hashes([1, 2, 3, 4], 2) == first
    assert block_hashes([0, 2, 3, 4], 2)[1] != first[1]
    assert block_hashes([1, 2, 3, 4], 2, b"adapter")[0] != first[0]
    assert next_hash(root_hash(), [1, 2]) == first[0]
    assert block_hashes([], 2) == []


def test_the_same_tokens_are_cached_once() -> None:
    pool = KVBlockPool(8)
    prompt = list(range(10))
    one = table(pool, prompt)
    two = table(pool, prompt)
    assert two.blocks[:2] == one.blocks[:2]
    assert two.blocks[2] != one.blocks[2], "blocks that are not full belong to one sequence"
    assert (pool.num_used, pool.num_free) == (4, 4)
    shared = one.blocks[:2]
    one.free()
    assert (pool.num_used, pool.num_cached, pool.num_free) == (3, 0, 5)
    two.free()
    assert (pool.num_used, pool.num_cached, pool.num_free) == (0, 2, 6)
    three = table(pool, [*prompt[:8], 99])
    assert three.blocks[:2] == shared
    pool.check()


def test_a_cached_block_that_was_used_least_recently_is_evicted_first_and_later_blocks_before_earlier() -> None:
    evicted: list[tuple[int, BlockHash]] = []
    pool = KVBlockPool(4, lambda *each: evicted.append(each))
    old, new = [1] * 4 + [2] * 4, [3] * 4 + [4] * 4
    table(pool, old).free()
    table(pool, new).free()
    assert pool.num_cached == 4
    blocks = pool.allocate(3)
    assert blocks is not None
    hashes = [each for _, each in evicted]
    assert hashes == [*reversed(block_hashes(old, 4)), block_hashes(new, 4)[1]]
    assert [block for block, _ in evicted] == blocks
    assert len(pool.find(block_hashes(new, 4))) == 1
    assert pool.find(block_hashes(old, 4)) == []
    assert pool.allocate(2) is None
    assert pool.num_available == 1
    pool.check()


def test_two_sequences_that_computed_the_same_block_keep_their_own() -> None:
    pool = KVBlockPool(4)
    one, two = (BlockTable(pool, 4, root_hash()) for _ in range(2))
    for each in (one, two):
        assert each.grow(4)
    for each in (one, two):
        each.write([7, 8, 9, 10])
    pool.check()
    assert one.blocks != two.blocks
    assert pool.find(block_hashes([7, 8, 9, 10], 4)) == one.blocks
    two.free()
    one.free()
    assert (pool.num_cached, pool.num_free) == (1, 3)


def test_a_fork_shares_full_blocks_and_copies_the_rest() -> None:
    pool = KVBlockPool(6)
    one = table(pool, list(range(10)))
    forked = one.fork()
    assert forked is not None
    two, copy = forked
    assert two.blocks[:2] == one.blocks[:2]
    assert copy == (one.blocks[2], two.blocks[2])
    assert pool.is_writable(one.blocks[2])
    assert pool.is_writable(two.blocks[2])
    assert not pool.is_writable(one.blocks[0])
    two.write([*range(10), 50, 51])
    one.write([*range(10), 60, 61])
    assert len(pool.find(block_hashes([*range(10), 50, 51], 4))) == 3
    assert len(pool.find(block_hashes([*range(10), 60, 61], 4))) == 3
    whole = one.fork()
    assert whole is not None
    assert whole[1] is None, "all blocks are full"
    pool.check()


def test_a_block_that_others_read_is_not_written_to() -> None:
    pool = KVBlockPool(6)
    one = table(pool, list(range(6)))
    pool.hold(one.blocks[1:])
    with pytest.raises(InternalError, match=f"KV block {one.blocks[1]} was written to, though others read it"):
        one.write(list(range(7)))
    assert one.num_tokens == 6


def test_guesses_are_taken_back() -> None:
    pool = KVBlockPool(6)
    one = table(pool, list(range(6)))
    assert one.grow(14)
    assert pool.num_used == 4
    one.truncate(7)
    assert (pool.num_used, len(one.blocks), one.num_tokens) == (2, 2, 6)
    with pytest.raises(InternalError, match="3 tokens are fewer than those in 1 published blocks"):
        one.truncate(3)
    assert not one.grow(100)
    assert len(one.blocks) == 2
    pool.check()


def test_mistakes_are_told() -> None:
    pool = KVBlockPool(2)
    with pytest.raises(InternalError, match="KV block 0 is free and cannot be held"):
        pool.hold([0])
    blocks = pool.allocate(1)
    assert blocks is not None
    pool.release(blocks)
    with pytest.raises(InternalError, match="released more often"):
        pool.release(blocks)
    with pytest.raises(InternalError, match="not in use"):
        pool.publish(blocks[0], root_hash())
    with pytest.raises(InternalError, match="9 tokens were written to blocks with room for 0"):
        BlockTable(pool, 4, root_hash()).write(list(range(9)))


def test_new_weights_make_cached_blocks_useless() -> None:
    evicted: list[int] = []
    pool = KVBlockPool(4, lambda block, _: evicted.append(block))
    table(pool, list(range(8))).free()
    pool.forget_cached()
    assert (pool.num_free, pool.num_cached, evicted) == (4, 0, [])
    assert pool.find(block_hashes(list(range(8)), 4)) == []
    pool.check()
