"""The pool of KV blocks: a fixed number of blocks, which sequences hold and share.

Each block is in one of three states:

- free: its content is not needed;
- used: one or more sequences hold it (it has a reference count);
- cached: no sequence holds it, but it is in the prefix cache, so that a later sequence with the same tokens may use it.

The prefix cache finds a block by a hash of its tokens and of all tokens before them. Only a block in the prefix cache
has a hash.

Invariants: free + used + cached == total (`check` verifies it), and no block that is shared or has a hash is written to
(see `is_writable`).
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence

from triune.core.errors import InternalError
from triune.engine.kv.hashes import BlockHash


class KVBlockPool:
    """Counts the references to each block. It does not access the blocks' memory, which a `DecoderExecutable` owns."""

    def __init__(self, num_blocks: int, on_eviction: Callable[[int, BlockHash], None] | None = None) -> None:
        """Args:
        num_blocks: how many blocks there are, at least 1; they are numbered from 0.
        on_eviction: called with a cached block and its hash before the block is given to another sequence, so that its
            content can be moved elsewhere.
        """
        self._references = [0] * num_blocks
        self._hashes: list[BlockHash | None] = [None] * num_blocks
        self._free = deque(range(num_blocks))
        self._cached: OrderedDict[int, None] = OrderedDict()
        """The cached blocks, the least recently used first."""
        self._by_hash: dict[BlockHash, int] = {}
        self._on_eviction = on_eviction

    @property
    def num_blocks(self) -> int:
        """The number of all blocks."""
        return len(self._references)

    @property
    def num_free(self) -> int:
        """The number of free blocks, whose content is not needed."""
        return len(self._free)

    @property
    def num_cached(self) -> int:
        """The number of cached blocks: no sequence holds them, and their content can be used again."""
        return len(self._cached)

    @property
    def num_used(self) -> int:
        """The number of blocks that sequences hold."""
        return self.num_blocks - self.num_free - self.num_cached

    @property
    def num_available(self) -> int:
        """The number of blocks that `allocate` can give: free and cached ones."""
        return self.num_free + self.num_cached

    def allocate(self, count: int) -> list[int] | None:
        """Give `count` blocks to a sequence, free ones first, then the least recently used of the cached ones.

        Returns:
            the blocks, each with one reference and without a hash; None if fewer are available, and then nothing
            changes.
        """
        if count > self.num_available:
            return None
        blocks: list[int] = []
        for _ in range(count):
            block = self._free.popleft() if self._free else self._evict()
            self._references[block] = 1
            blocks.append(block)
        return blocks

    def find(self, hashes: Iterable[BlockHash]) -> list[int]:
        """The blocks that hold the beginning of a sequence: those of the first hashes, up to the first unknown one.

        Nothing changes. Call `hold` with the blocks before anything else is allocated.
        """
        found: list[int] = []
        for each in hashes:
            block = self._by_hash.get(each)
            if block is None:
                break
            found.append(block)
        return found

    def hold(self, blocks: Sequence[int]) -> None:
        """Add a reference to used or cached blocks."""
        for block in blocks:
            if not self._references[block] and block not in self._cached:
                raise InternalError(f"KV block {block} is free and cannot be held")
            self._references[block] += 1
            self._cached.pop(block, None)

    def release(self, blocks: Sequence[int]) -> None:
        """Drop a reference to each block. A block without references becomes cached if it has a hash, else free.

        Give a sequence's blocks in the order of its tokens: later blocks count as less recently used, since they are of
        no use without the earlier ones.
        """
        for block in reversed(blocks):
            if not self._references[block]:
                raise InternalError(f"KV block {block} is released more often than it was held")
            self._references[block] -= 1
            if self._references[block]:
                continue
            if self._hashes[block] is None:
                self._free.append(block)
            else:
                self._cached[block] = None

    def publish(self, block: int, block_hash: BlockHash) -> None:
        """Put a full block into the prefix cache, under its hash. It is not written to any more.

        If another block has this hash already, this one stays out of the cache, and is free after its last reference.
        """
        if not self._references[block] or self._hashes[block] is not None:
            raise InternalError(f"KV block {block} is not in use, or has a hash already")
        if block_hash not in self._by_hash:
            self._by_hash[block_hash] = block
            self._hashes[block] = block_hash

    def is_writable(self, block: int) -> bool:
        """Whether a sequence may write to a block that it holds.

        It may if no other sequence holds the block, and if the block is not in the prefix cache (it has no hash).
        """
        return self._references[block] == 1 and self._hashes[block] is None

    def cached(self) -> list[tuple[int, BlockHash]]:
        """The cached blocks and their hashes, the most recently used first."""
        found = [(block, self._hashes[block]) for block in reversed(self._cached)]
        return [(block, each) for block, each in found if each is not None]

    def forget_cached(self) -> None:
        """Free all cached blocks, without telling `on_eviction`: for new weights, for example."""
        while self._cached:
            block, _ = self._cached.popitem(last=False)
            self._drop_hash(block)
            self._free.append(block)

    def check(self) -> None:
        """Check the invariants. Raises InternalError naming a violated one."""
        free, cached = set(self._free), set(self._cached)
        used = {block for block, count in enumerate(self._references) if count}
        if len(free) != len(self._free) or free & cached or free & used or cached & used:
            raise InternalError("a KV block is in two states")
        if len(free) + len(used) + len(cached) != self.num_blocks:
            raise InternalError(
                f"{len(free)} free, {len(used)} used and {len(cached)} cached KV blocks are not {self.num_blocks}"
            )
        known = {block: each for block, each in enumerate(self._hashes) if each is not None}
        if known != {block: each for each, block in self._by_hash.items()}:
            raise InternalError("the hashes of KV blocks and the index of hashes differ")
        if not cached <= known.keys() or free & known.keys():
            raise InternalError("a cached KV block has no hash, or a free one has one")

    def _evict(self) -> int:
        block, _ = self._cached.popitem(last=False)
        block_hash = self._drop_hash(block)
        if self._on_eviction is not None:
            self._on_eviction(block, block_hash)
        return block

    def _drop_hash(self, block: int) -> BlockHash:
        block_hash = self._hashes[block]
        if block_hash is None:
            raise InternalError(f"cached KV block {block} has no hash")
        self._hashes[block] = None
        del self._by_hash[block_hash]
        return block_hash
