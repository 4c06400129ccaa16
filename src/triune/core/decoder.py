"""What the transformer engine requires of runtimes: a compiled decoder with a paged cache of keys and values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Final, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError
from triune.core.pending_tokens import KnownTokens, PendingTokens
from triune.core.units import Unit

CacheType: TypeAlias = Literal["fp32", "fp16", "bf16", "int8"]
"""The type of the keys and values in a cache."""

DecoderPrecision: TypeAlias = Literal["fp32", "bf16", "fp16"]
"""The floating-point format of a decoder's computation."""


_NONE: Final = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class DecoderStep:
    """The new tokens of one step, packed: all tokens of the first sequence, then those of the second, and so on.

    Attributes:
        input_ids: INT64 [tokens].
        position_ids: INT64 [tokens], each token's position in its sequence.
        past_lengths: INT32 [sequences], how many tokens of each sequence are in the cache.
        subsequence_begins: INT32 [sequences + 1]: sequence i has the tokens from begins[i] up to begins[i + 1].
        block_indices: INT32, the cache blocks of all sequences, packed like the tokens.
        block_indices_begins: INT32 [sequences + 1], where the blocks of each sequence begin in `block_indices`.
        logits_indices: INT64 [n], the packed indices of the tokens to compute logits for.
        memory: the encoder's outputs that the graph reads, by the names of the graph's inputs: FP32 [sequences, source
            tokens, width]. It is empty for graphs without an encoder.
        adapters: INT64 [tokens], the LoRA adapter of each token: 0 for none, else the adapter's number in the graph,
            counted from 1. None if no token has an adapter.
        sources: INT64 [tokens]. If the previous step is still computing a token, this is the token's row among the
            results of that step. Otherwise it is -1, and `input_ids` has the token. None if all tokens are known.
    """

    input_ids: NDArray[np.int64]
    position_ids: NDArray[np.int64]
    past_lengths: NDArray[np.int32]
    subsequence_begins: NDArray[np.int32]
    block_indices: NDArray[np.int32]
    block_indices_begins: NDArray[np.int32]
    logits_indices: NDArray[np.int64]
    memory: Mapping[str, NDArray[np.float32]] = field(default_factory=dict[str, NDArray[np.float32]])
    adapters: NDArray[np.int64] | None = None
    sources: NDArray[np.int64] | None = None

    def with_tokens(self, before: NDArray[np.int64]) -> "DecoderStep":
        """Return the step with all tokens known.

        Args:
            before: INT64 [rows], the tokens that the previous step computed. `NO_TOKEN`, which means that the sequence
                has failed, becomes 0.
        """
        if self.sources is None:
            return self
        is_known = self.sources < 0
        ids = self.input_ids if not len(before) else np.maximum(before[np.where(is_known, 0, self.sources)], 0)
        return replace(self, input_ids=np.where(is_known, self.input_ids, ids), sources=None)

    def arrays(self) -> dict[str, Array]:
        """The arrays by the names of the graph's inputs. They include `adapter_rows` INT64 [adapted], the indices of
        the tokens that have an adapter, and `adapters` INT64 [adapted], the adapter of each. Graphs without adapters
        read neither.
        """
        adapters = _NONE if self.adapters is None else self.adapters
        rows = np.flatnonzero(adapters)
        return {
            **{each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("memory", "sources")},
            **self.memory,
            "adapter_rows": rows,
            "adapters": adapters[rows],
        }

    def require_fitting(self, num_blocks: int, block_size: int) -> None:
        """Check that the step makes no runtime read or write outside the cache.

        Raises:
            InvalidArgumentError: offsets do not ascend from 0 to the number of tokens or blocks, a sequence has too few
                blocks for its tokens, an index is out of range, the memory has another number of sequences, or the
                adapters or sources have another number of tokens.
        """
        tokens, begins, block_begins = len(self.input_ids), self.subsequence_begins, self.block_indices_begins
        new, held = np.diff(begins), np.diff(block_begins)
        if not (
            len(begins) == len(block_begins) == len(self.past_lengths) + 1 > 1
            and begins[0] == block_begins[0] == 0
            and begins[-1] == tokens == len(self.position_ids)
            and block_begins[-1] == len(self.block_indices)
            and new.min() >= 0
            and held.min() >= 0
            and self.past_lengths.min() >= 0
        ):
            raise InvalidArgumentError(
                f"a step of {tokens} tokens, {len(self.position_ids)} positions, {len(self.past_lengths)} sequences "
                f"and {len(self.block_indices)} blocks has the offsets {begins.tolist()} and {block_begins.tolist()}: "
                "each must ascend from 0 to the number of tokens or blocks, and have one entry more than sequences"
            )
        if self.adapters is not None and self.adapters.shape != (tokens,):
            raise InvalidArgumentError(
                f"a step of {tokens} tokens has adapters of the shape {list(self.adapters.shape)}: give one for each"
            )
        if self.sources is not None and self.sources.shape != (tokens,):
            raise InvalidArgumentError(
                f"a step of {tokens} tokens has sources of the shape {list(self.sources.shape)}: give one for each"
            )
        for name, memory in self.memory.items():
            if len(memory) != len(self.past_lengths):
                raise InvalidArgumentError(
                    f"'{name}' of a step has {len(memory)} rows; the step has {len(self.past_lengths)} sequences"
                )
        if ((self.past_lengths + new) > held * block_size).any():
            which = int(np.argmax(self.past_lengths + new - held * block_size))
            raise InvalidArgumentError(
                f"sequence {which} of the step has {self.past_lengths[which]} tokens and gets {new[which]}; its "
                f"{held[which]} blocks hold {held[which] * block_size}"
            )
        for name, indices, limit in (
            ("block", self.block_indices, num_blocks),
            ("token with logits", self.logits_indices, tokens),
        ):
            if len(indices) and not 0 <= indices.min() <= indices.max() < limit:
                worst = indices.min() if indices.min() < 0 else indices.max()
                raise InvalidArgumentError(f"a {name} of the step is {worst}; there are {limit}")


class DecoderExecutable(Protocol):
    """A decoder compiled for a unit, with its paged cache, which it owns.

    Only one call may run at a time, on any thread. `run` releases the GIL while it computes. Each call reads a cache
    that has the writes of all steps that began before it.
    """

    @property
    def unit(self) -> Unit:
        """The unit that the decoder was compiled for."""
        ...

    @property
    def precision(self) -> str:
        """The floating-point format of the computation: "fp32", "bf16", "fp16"."""
        ...

    @property
    def cache_form(self) -> str:
        """The name of the memory layout of blocks. Executables of one model with the same form can exchange blocks."""
        ...

    @property
    def block_size(self) -> int:
        """The number of tokens that a block holds."""
        ...

    @property
    def block_bytes(self) -> int:
        """The memory of one block in all layers, in bytes."""
        ...

    @property
    def num_blocks(self) -> int:
        """The number of blocks of the cache."""
        ...

    @property
    def can_run_ahead(self) -> bool:
        """Whether `begin` returns while the step is still being computed, so that the next step can be prepared
        meanwhile.
        """
        ...

    def allocate(self, num_blocks: int) -> None:
        """Replace the cache by an empty one of `num_blocks` blocks, at least 1.

        Raises:
            NoMemoryError: there is not enough memory.
        """
        ...

    def run(self, step: DecoderStep) -> NDArray[np.float32]:
        """Write the step's keys and values to the cache, and compute logits.

        Returns:
            FP32 [n, vocabulary] in the order of `step.logits_indices`. It is the executable's memory: the next `run`
            writes to it.

        Raises:
            InvalidArgumentError: the step does not fit the cache (see `DecoderStep.require_fitting`).
            InternalError: the runtime failed otherwise.
        """
        ...

    def begin(self, step: DecoderStep, before: PendingTokens | None = None) -> PendingTokens:
        """Run a step as `run` does, but return the most probable tokens instead of logits, so that the logits stay in
        the unit's memory. If `can_run_ahead`, the step may still be computed when this returns.

        Args:
            step: the step.
            before: the tokens of the previous step, if `step.sources` refers to some of them.

        Raises:
            InvalidArgumentError: the step does not fit the cache.
            InternalError: the runtime failed in this step, or in the previous one; then this step is not computed.
        """
        ...

    def read_blocks(self, indices: Sequence[int]) -> Sequence[Array]:
        """Copy blocks from the cache.

        Returns:
            for each layer its keys, then its values: [blocks, ...] in the layout that `cache_form` names.
        """
        ...

    def write_blocks(self, indices: Sequence[int], blocks: Sequence[Array]) -> None:
        """Write blocks that `read_blocks` of this executable, or of another one of the same model and form, returned.

        Raises:
            InvalidArgumentError: the blocks have another number, shape or type.
        """
        ...

    def read_tokens(self, blocks: Sequence[int], num_tokens: int) -> Sequence[NDArray[np.float32]]:
        """Copy the keys and values of a sequence's first tokens from its blocks.

        Returns:
            for each layer its keys, then its values: FP32 [tokens, heads, size]. Executables with any form and block
            size can take these.
        """
        ...

    def write_tokens(self, blocks: Sequence[int], tokens: Sequence[NDArray[np.float32]]) -> None:
        """Write keys and values that `read_tokens` returned to blocks.

        Raises:
            InvalidArgumentError: the blocks cannot hold so many tokens, or the tokens belong to another model.
        """
        ...

    def copy_blocks(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy blocks within the cache. All source blocks are read before any target block is written."""
        ...

    def close(self) -> None:
        """Free all resources. No call may be running, and only `close` may follow, which then does nothing."""
        ...


class LogitsOnHost:
    """A base class for decoders whose `run` returns logits in the host's memory. Its `begin` calls `run`, and so waits
    for the step.
    """

    can_run_ahead = False

    def run(self, step: DecoderStep) -> NDArray[np.float32]:
        """Implements `DecoderExecutable.run`."""
        raise NotImplementedError

    def begin(self, step: DecoderStep, before: PendingTokens | None = None) -> PendingTokens:
        """Implements `DecoderExecutable.begin`."""
        return KnownTokens(best_tokens(self.run(step if before is None else step.with_tokens(before.read()))))


NO_TOKEN: Final = -1
"""The result for a row of logits without a valid token, since one is NaN, or the largest one is infinite."""


def best_tokens(logits: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the token with the largest logit in each row of [n, vocabulary], or the first of several with equal
    logits: INT64 [n].

    A row's result is `NO_TOKEN` if any of its logits is NaN, or the largest one is infinite.
    """
    # If a row has a NaN, `argmax` returns the NaN's index. So a row is invalid if its logit there is not finite.
    tokens = logits.argmax(axis=1)
    tokens[~np.isfinite(logits[np.arange(len(tokens)), tokens])] = NO_TOKEN
    return tokens
