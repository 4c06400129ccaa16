"""The base of all packed forms of weights: small codes and, for each block of a row, a scale and possibly an offset."""

from dataclasses import dataclass

import numpy as np

from triune.core.datatypes import Array
from triune.engine.weights.tensors import Bits


@dataclass(frozen=True, slots=True)
class Affine:
    """Rows of weights `code * scale + offset`.

    Attributes:
        codes: [rows, columns]; INT8 without offsets, UINT8 with them.
        bits: 4 if the codes fit into 4 bits, else 8.
        scales: FP16 or FP32 [rows, columns / block_size].
        offsets: FP32 of the same shape; None if all are 0.
        block_size: the number of codes of a row that share a scale.
    """

    codes: Array
    bits: Bits
    scales: Array
    offsets: Array | None
    block_size: int

    def dequantize(self) -> Array:
        """The weights `code * scale + offset` as FP32 [rows, columns]. Products and sums are rounded as ggml rounds
        them, so that the weights equal ggml's bit for bit.
        """
        rows, columns = self.codes.shape
        weights = self.codes.reshape(rows, -1, self.block_size).astype(np.float32)
        weights *= self.scales[..., np.newaxis].astype(np.float32)
        if self.offsets is not None:
            weights += self.offsets[..., np.newaxis]
        return weights.reshape(rows, columns)
