"""A scripted decoder with a cache, whose keys and values can be moved to another decoder."""

from typing import Any, Final

import numpy as np

from support.scripted import ScriptedDecoder
from triune.core.errors import InvalidArgumentError

SCRIPT: Final = "Grün ist der Tag, and 1 + 1 = 2. ".encode()


class CopyingDecoder(ScriptedDecoder):
    """A decoder whose keys are the tokens that were written to each cache slot, and whose values are their positions.

    Attributes:
        last: the step after which the decoder waits at the gate. `entered` is set again when the next step has reached
            the gate.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(SCRIPT, **options)
        self.last = 0
        self.cache_form = f"copying {self.block_size}"
        self.cache = np.full((2, self.num_blocks, self.block_size), -1, np.float32)

    def release(self) -> None:
        """Compute all further steps."""
        self.last = 0
        self.gate.set()

    def run(self, step):
        logits = super().run(step)
        if len(self.steps) == self.last:
            self.entered.clear()
            self.gate.clear()
        for row, past in enumerate(step.past_lengths):
            begin, end = step.subsequence_begins[row : row + 2]
            blocks = step.block_indices[slice(*step.block_indices_begins[row : row + 2])]
            places = np.arange(past, past + end - begin)
            self.cache[0, blocks[places // self.block_size], places % self.block_size] = step.input_ids[begin:end]
            self.cache[1, blocks[places // self.block_size], places % self.block_size] = places
            # The cache must have all earlier tokens, even if another decoder computed them.
            read = self.cache[1, blocks].reshape(-1)[: past + end - begin]
            assert read.tolist() == list(range(past + end - begin))
        return logits

    def read_blocks(self, indices):
        return [each[list(indices)] for each in self.cache]

    def write_blocks(self, indices, blocks) -> None:
        for cache, each in zip(self.cache, blocks, strict=True):
            cache[list(indices)] = each

    def read_tokens(self, blocks, num_tokens):
        return [each[list(blocks)].reshape(-1, 1, 1)[:num_tokens] for each in self.cache]

    def write_tokens(self, blocks, tokens) -> None:
        for cache, each in zip(self.cache, tokens, strict=True):
            if each.shape[1:] != (1, 1):
                raise InvalidArgumentError("keys and values are of another model")
            cache[list(blocks)] = each.reshape(len(blocks), self.block_size)
