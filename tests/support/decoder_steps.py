"""Steps of decoders, written by hand."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from triune.core.decoder import DecoderExecutable, DecoderStep


class Texts:
    """Texts that a decoder computes step by step, some tokens of each text in a step. Their KV blocks are in random
    order.
    """

    def __init__(
        self,
        decoder: DecoderExecutable,
        texts: Sequence[NDArray[np.int64]],
        memory: Mapping[str, NDArray[np.float32]] | None = None,
        adapters: Sequence[int] = (),
    ) -> None:
        """The decoder must have blocks for all texts. `memory` has a row for each text, and `adapters` the number of
        each text's adapter.
        """
        self._memory = memory or {}
        self._adapters = adapters
        self.decoder = decoder
        self.texts = texts
        self.lengths = [0] * len(texts)
        counts = [-(-len(text) // decoder.block_size) for text in texts]
        order = np.random.default_rng(1).permutation(decoder.num_blocks)[: sum(counts)].astype(np.int32)
        self.blocks = np.split(order, np.cumsum(counts)[:-1])

    def step(self, counts: Mapping[int, int]) -> DecoderStep:
        """Make the step that computes the next `counts` tokens of some texts, with logits for each token."""
        texts = [self.texts[which][self.lengths[which] :][:count] for which, count in counts.items()]
        # A sequence has only the blocks that it needs after this step.
        needed = [-(-(self.lengths[which] + count) // self.decoder.block_size) for which, count in counts.items()]
        blocks = [self.blocks[which][:count] for which, count in zip(counts, needed, strict=True)]
        positions = [self.lengths[which] + np.arange(count) for which, count in counts.items()]
        return DecoderStep(
            np.concatenate(texts),
            np.concatenate(positions),
            np.array([self.lengths[which] for which in counts], np.int32),
            np.cumsum([0, *counts.values()]).astype(np.int32),
            np.concatenate(blocks),
            np.cumsum([0, *needed]).astype(np.int32),
            np.arange(sum(counts.values())),
            {name: rows[list(counts)] for name, rows in self._memory.items()},
            np.repeat([self._adapters[which] for which in counts], list(counts.values())) if self._adapters else None,
        )

    def read(self, counts: Mapping[int, int]) -> list[NDArray[np.float32]]:
        """Make and run a step. Returns the logits [tokens, vocabulary] of each text's tokens."""
        logits = self.decoder.run(self.step(counts)).copy()
        for which, count in counts.items():
            self.lengths[which] += count
        return np.split(logits, np.cumsum(list(counts.values()))[:-1])

    def read_all(self, *steps: Mapping[int, int]) -> list[NDArray[np.float32]]:
        """Run several steps; returns the logits of all tokens of each text."""
        parts: list[list[NDArray[np.float32]]] = [[] for _ in self.texts]
        for counts in steps:
            for which, logits in zip(counts, self.read(counts), strict=True):
                parts[which].append(logits)
        return [np.concatenate(each) for each in parts]
