"""The caches of OpenVINO's paged attention: the layout of keys and values in blocks, and the types of the numbers."""

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from triune.core.datatypes import Array, DataType
from triune.core.kv_blocks import blocks_of, tokens_of
from triune.runtimes.openvino.library import library

_PARAMETER_BYTES: Final = 8
"""The bytes of the scale and the zero point, both FP32, which are stored before each group of 8-bit numbers."""


class Cache:
    """The keys or the values of one layer.

    A block of floats is [heads, tokens of a block, head size]. In a cache of 8 bits, a number is (code - zero point) *
    scale. Values have a scale and a zero point for each token, in the 8 bytes before its codes: a block is [heads,
    tokens, 8 + head size]. Keys have them for each channel of a block, in 8 rows before those of the tokens: [heads, 8
    + tokens, head size] (as seen in openvino 2026.4.1).

    Attributes:
        blocks: the memory that the plugin reads and writes, [num_blocks, *block].
        form: the type and shape of a block.
        heads: the number of heads.
        head_size: the size of a head.
    """

    def __init__(self, port: Any, heads: int, head_size: int) -> None:
        """Args:
        port: the compiled model's input for this cache.
        heads: the number of heads.
        head_size: the size of a head.
        """
        self.heads, self.head_size = heads, head_size
        self._element_type = port.get_element_type()
        _, *rest = port.get_partial_shape()
        self._shape: list[int] = [each.get_length() for each in rest]
        self.form = f"{self._element_type.get_type_name()}{self._shape}"
        self.blocks: Array = np.zeros(0)

    @property
    def is_by_channel(self) -> bool:
        """Whether numbers of 8 bits share a scale with those of the same channel, rather than of the same token."""
        return self._element_type == library.Type.u8 and self._shape[2] == self.head_size

    @property
    def block_size(self) -> int:
        """The number of tokens in a block."""
        return self._shape[1] - (_PARAMETER_BYTES if self.is_by_channel else 0)

    @property
    def block_bytes(self) -> int:
        """The memory of a block, in bytes."""
        return math.prod(self._shape) * self._element_type.size

    def allocate(self, num_blocks: int) -> Any:
        """Allocate the memory, filled with zeros, and return it as OpenVINO's tensor."""
        tensor = library.Tensor(self._element_type, [num_blocks, *self._shape])
        blocks: Array = tensor.data
        # View the bits as bf16: numpy has no bf16, so OpenVINO's binding returns them as another 16-bit dtype.
        self.blocks = blocks.view(DataType.BF16.dtype) if self._element_type == library.Type.bf16 else blocks
        self.blocks[...] = 0
        return tensor

    def tokens(self, indices: Sequence[int], num_tokens: int) -> NDArray[np.float32]:
        """Read the first `num_tokens` tokens of blocks as FP32 [tokens, heads, head size]."""
        blocks = self.blocks[list(indices)]
        if blocks.dtype == np.uint8:
            scales, zeros, codes = self._parts(blocks)
            blocks = (codes.astype(np.float32) - zeros) * scales
        return tokens_of(blocks, num_tokens)

    def put_tokens(self, indices: Sequence[int], tokens: NDArray[np.float32]) -> None:
        """Write tokens, FP32 [tokens, heads, head size], to blocks that have room for all of them."""
        numbers = blocks_of(tokens, len(indices), self.block_size)
        if self.blocks.dtype != np.uint8:
            self.blocks[list(indices)] = numbers
            return
        axis = 2 if self.is_by_channel else 3
        low, high = numbers.min(axis, keepdims=True), numbers.max(axis, keepdims=True)
        # If all numbers that share a scale are equal, as for a single token, their range is 0. Then any scale that
        # represents the number exactly will do.
        step = np.maximum(np.where(high > low, high - low, np.abs(low)) / 255, np.finfo(np.float32).tiny)
        blocks = np.empty((len(indices), *self._shape), np.uint8)
        scales, zeros, codes = self._parts(blocks)
        scales[...], zeros[...] = step, -low / step
        codes[...] = np.minimum(np.rint(numbers / step - low / step), 255)
        self.blocks[list(indices)] = blocks

    def put_new(self, slots: NDArray[np.int64], tokens: NDArray[np.float32]) -> None:
        """Write tokens, FP32 [tokens, heads * head size], to a cache of floats, each token to its slot, counted in
        tokens from the first block.
        """
        block_size = self.block_size
        rows = tokens.reshape(len(slots), self.heads, self.head_size)
        self.blocks[slots // block_size, :, slots % block_size] = rows

    def _parts(self, blocks: Array) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]]:
        """Views of scales, zero points and codes of contiguous blocks in 8 bits; the scales and zero points broadcast
        to the codes.
        """
        if not self.is_by_channel:
            parameters = blocks[..., :_PARAMETER_BYTES].view(np.float32)
            return parameters[..., :1], parameters[..., 1:], blocks[..., _PARAMETER_BYTES:]
        rows = blocks.reshape(*blocks.shape[:2], -1)[..., : _PARAMETER_BYTES * self.head_size].view(np.float32)
        parameters = rows[..., np.newaxis, :]
        return (
            parameters[..., : self.head_size],
            parameters[..., self.head_size :],
            blocks[..., _PARAMETER_BYTES:, :],
        )
