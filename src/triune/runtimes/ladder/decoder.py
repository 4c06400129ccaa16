"""A `DecoderExecutable` for the transformer engine that computes with a `Ladder`."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from triune.core.datatypes import Array
from triune.core.decoder import DecoderStep, LogitsOnHost
from triune.core.errors import InvalidArgumentError
from triune.core.kv_blocks import checked_blocks, checked_tokens
from triune.core.units import Unit
from triune.runtimes.cache_holds import let_go
from triune.runtimes.ladder.ladder import Held, Ladder


class LadderDecoder(LogitsOnHost):
    """A `DecoderExecutable` that computes the sequences of a step one after the other.

    A block is the cache of a whole sequence, so that there are as many sequences as blocks, and none share a prefix. A
    block takes as much memory as its sequence needs.
    """

    def __init__(
        self,
        ladder: Ladder,
        *,
        unit: Unit,
        precision: str,
        heads: Sequence[tuple[int, int]],
        vocab_size: int,
        num_blocks: int,
    ) -> None:
        """Args:
        ladder: the functions of the program, which the decoder closes.
        unit: the unit that they are loaded for.
        precision: the precision that they compute in.
        heads: for each layer (number, size) of the heads of its keys, then of those of its values.
        vocab_size: the number of logits of a token.
        num_blocks: the number of sequences in the cache.
        """
        self.unit = unit
        self.precision = precision
        self._ladder = ladder
        self._heads = heads
        self._vocab_size = vocab_size
        self._dtypes = [each.dtype for each in ladder.start().caches.values()]
        self.block_size = ladder.contexts[-1]
        self.cache_form = f"{self._dtypes[0].name} explicit [{self.block_size}]"
        self.allocate(num_blocks)

    @property
    def block_bytes(self) -> int:
        """Implements `DecoderExecutable.block_bytes`."""
        sizes = zip(self._heads, self._dtypes, strict=True)
        return sum(count * size * dtype.itemsize for (count, size), dtype in sizes) * self.block_size

    @property
    def num_blocks(self) -> int:
        """Implements `DecoderExecutable.num_blocks`."""
        return len(self._blocks)

    def allocate(self, num_blocks: int) -> None:
        """Implements `DecoderExecutable.allocate`. Memory is allocated when a sequence needs it."""
        self._blocks: list[Held | None] = [None] * num_blocks

    def run(self, step: DecoderStep) -> NDArray[np.float32]:
        """Implements `DecoderExecutable.run`."""
        step.require_fitting(self.num_blocks, self.block_size)
        logits = np.empty((len(step.logits_indices), self._vocab_size), np.float32)
        for row, past in enumerate(step.past_lengths.tolist()):
            begin, end = step.subsequence_begins[row : row + 2].tolist()
            if begin == end:
                continue
            is_own = (step.logits_indices >= begin) & (step.logits_indices < end)
            wanted = np.unique(step.logits_indices[is_own])
            held = self._held(int(step.block_indices[step.block_indices_begins[row]]), past)
            found = self._ladder.read(held, past, step.input_ids[begin:end], (wanted - begin).tolist())
            for token, each in zip(wanted, found, strict=True):
                logits[step.logits_indices == token] = each
        return logits

    def read_blocks(self, indices: Sequence[int]) -> Sequence[Array]:
        """Implements `DecoderExecutable.read_blocks`."""
        whole = [self._whole(index) for index in indices]
        return [
            np.stack([arrays[place] for arrays in whole]) if whole else np.empty((0, *shape), dtype)
            for place, (shape, dtype) in enumerate(zip(self._shapes(), self._dtypes, strict=True))
        ]

    def write_blocks(self, indices: Sequence[int], blocks: Sequence[Array]) -> None:
        """Implements `DecoderExecutable.write_blocks`."""
        likes = [np.empty((0, *shape), dtype) for shape, dtype in zip(self._shapes(), self._dtypes, strict=True)]
        given = checked_blocks(indices, blocks, likes)
        for place, index in enumerate(indices):
            held = self._ladder.start(self.block_size)
            held.caches = {name: each[place][np.newaxis].copy() for name, each in zip(held.caches, given, strict=True)}
            self._blocks[index] = held

    def read_tokens(self, blocks: Sequence[int], num_tokens: int) -> Sequence[NDArray[np.float32]]:
        """Implements `DecoderExecutable.read_tokens`."""
        arrays = self._held(blocks[0], num_tokens).caches.values()
        return [
            (each[0] if place % 2 == 0 else each[0].T)[:num_tokens].reshape(num_tokens, *heads).astype(np.float32)
            for place, (each, heads) in enumerate(zip(arrays, self._heads, strict=True))
        ]

    def write_tokens(self, blocks: Sequence[int], tokens: Sequence[NDArray[np.float32]]) -> None:
        """Implements `DecoderExecutable.write_tokens`."""
        given = checked_tokens(tokens, self._heads)
        count = len(given[0])
        if count > len(blocks) * self.block_size:
            raise InvalidArgumentError(
                f"{count} tokens are to be written to {len(blocks)} blocks of {self.block_size}, which hold "
                f"{len(blocks) * self.block_size}"
            )
        held = self._ladder.start(count)
        for place, (cache, each) in enumerate(zip(held.caches.values(), given, strict=True)):
            rows = cache[0] if place % 2 == 0 else cache[0].T
            rows[:count] = each.reshape(count, -1)
        self._blocks[blocks[0]] = held

    def copy_blocks(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Implements `DecoderExecutable.copy_blocks`."""
        copies = [self._copied(source) for source in sources]
        for target, each in zip(targets, copies, strict=True):
            self._blocks[target] = each

    def close(self) -> None:
        """Implements `DecoderExecutable.close`."""
        self._ladder.close()
        self._blocks.clear()
        let_go(self)

    def _held(self, index: int, num_tokens: int) -> Held:
        """The block with this index, moved to a cache that holds `num_tokens` tokens if its own is too small. If no
        tokens are in it (`num_tokens` is 0) or it does not exist, it is replaced by an empty block of the smallest
        cache.
        """
        held = self._blocks[index]
        if held is None or not num_tokens:
            held = self._ladder.start(num_tokens or 1)
            self._blocks[index] = held
        self._ladder.grow(held, num_tokens)
        return held

    def _copied(self, index: int) -> Held | None:
        held = self._blocks[index]
        if held is None:
            return None
        copy = self._ladder.start(held.context)
        copy.caches = {name: each.copy() for name, each in held.caches.items()}
        return copy

    def _whole(self, index: int) -> list[Array]:
        """A copy of the keys and values of the block with this index, in the size of the largest cache."""
        held = self._copied(index) or self._ladder.start(self.block_size)
        self._ladder.grow(held, self.block_size)
        return [each[0] for each in held.caches.values()]

    def _shapes(self) -> list[tuple[int, int]]:
        widths = [count * size for count, size in self._heads]
        size = self.block_size
        return [(size, width) if place % 2 == 0 else (width, size) for place, width in enumerate(widths)]
