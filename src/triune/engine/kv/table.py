"""The blocks of one sequence."""

from collections.abc import Sequence

from triune.core.errors import InternalError
from triune.engine.kv.hashes import BlockHash, next_hash
from triune.engine.kv.pool import KVBlockPool


class BlockTable:
    """The KV blocks of one sequence, in the order of its tokens.

    Attributes:
        blocks: the blocks; the sequence holds a reference to each.
        num_tokens: the number of tokens whose keys and values are in the blocks.
    """

    def __init__(self, pool: KVBlockPool, block_size: int, root: bytes) -> None:
        """Args:
        pool: the pool of blocks.
        block_size: the number of tokens in a block.
        root: the parent of the first block's hash: `hashes.root_hash` of the sequence's salt.
        """
        self._pool = pool
        self._block_size = block_size
        self._root = root
        self._last_hash = root
        self._num_published = 0
        self.blocks: list[int] = []
        self.num_tokens = 0

    @property
    def capacity(self) -> int:
        """The number of tokens that the blocks have room for."""
        return len(self.blocks) * self._block_size

    def num_missing(self, num_tokens: int) -> int:
        """The number of blocks to allocate before the sequence can have `num_tokens` tokens in all."""
        return max(0, -(-num_tokens // self._block_size) - len(self.blocks))

    def share(self, hashes: Sequence[BlockHash]) -> int:
        """Take blocks with the sequence's first tokens from the pool, where it has them. The table must be empty.

        Args:
            hashes: the hashes of the sequence's blocks.

        Returns:
            the number of tokens in the blocks taken.
        """
        if self.blocks:
            raise InternalError("only a sequence without blocks can share those of others")
        self.blocks = self._pool.find(hashes)
        self._pool.hold(self.blocks)
        self.num_tokens = len(self.blocks) * self._block_size
        self._num_published = len(self.blocks)
        if self.blocks:
            self._last_hash = hashes[len(self.blocks) - 1]
        return self.num_tokens

    def grow(self, num_tokens: int) -> bool:
        """Allocate blocks until there is room for `num_tokens` tokens in all.

        Returns:
            False if the pool does not have enough blocks; nothing changes then.
        """
        blocks = self._pool.allocate(self.num_missing(num_tokens))
        if blocks is None:
            return False
        self.blocks += blocks
        return True

    def write(self, tokens: Sequence[int], num_tokens: int | None = None) -> None:
        """Record that keys and values of the sequence are in the blocks. Full blocks are published.

        Args:
            tokens: token ids of the sequence, from the first.
            num_tokens: how many of them have their keys and values in the blocks; None means all.
        """
        num_tokens = len(tokens) if num_tokens is None else num_tokens
        if num_tokens > self.capacity:
            raise InternalError(f"{num_tokens} tokens were written to blocks with room for {self.capacity}")
        for block in self.blocks[self.num_tokens // self._block_size : -(-num_tokens // self._block_size)]:
            if not self._pool.is_writable(block):
                raise InternalError(f"KV block {block} was written to, though others read it")
        self.num_tokens = num_tokens
        for index in range(self._num_published, num_tokens // self._block_size):
            begin = index * self._block_size
            self._last_hash = next_hash(self._last_hash, tokens[begin : begin + self._block_size])
            self._pool.publish(self.blocks[index], BlockHash(self._last_hash))
            self._num_published = index + 1

    def truncate(self, num_tokens: int) -> None:
        """Forget all tokens from `num_tokens` on, such as rejected guesses, and release blocks that become empty.

        Published blocks stay: they hold accepted tokens, which cannot be taken back.
        """
        kept = -(-num_tokens // self._block_size)
        if num_tokens < self._num_published * self._block_size:
            raise InternalError(f"{num_tokens} tokens are fewer than those in {self._num_published} published blocks")
        self._pool.release(self.blocks[kept:])
        del self.blocks[kept:]
        self.num_tokens = min(self.num_tokens, num_tokens)

    def fork(self) -> tuple["BlockTable", tuple[int, int] | None] | None:
        """A table for a second sequence with the same tokens. Full blocks are shared, a partly filled one is copied.

        Returns:
            the table, and the pair (source, target) of blocks whose memory the caller must copy before the next step,
            or None for the pair if all blocks are full; None if the pool has no block for the copy.
        """
        num_full = self.num_tokens // self._block_size
        other = BlockTable(self._pool, self._block_size, self._root)
        rest = self._pool.allocate(1) if self.num_tokens % self._block_size else []
        if rest is None:
            return None
        shared = self.blocks[:num_full]
        self._pool.hold(shared)
        other.blocks = shared + rest
        other.num_tokens = self.num_tokens
        other._last_hash, other._num_published = self._last_hash, self._num_published
        return other, (self.blocks[num_full], rest[0]) if rest else None

    def free(self) -> None:
        """Release all blocks. The empty table may be filled again, from the sequence's first token."""
        self._pool.release(self.blocks)
        self.blocks = []
        self.num_tokens = self._num_published = 0
        self._last_hash = self._root
