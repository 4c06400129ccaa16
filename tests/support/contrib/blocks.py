"""Operators with weights of few bits and a scale for each block."""

from typing import Any

import numpy as np

from support.contrib.case import Case, floats, microsoft

RNG = np.random.default_rng(6)
ROWS, BLOCK = 10, 16
AT = np.array([[1, 9, 0], [3, 3, 2]], np.int64)


def _scales(*shape: int) -> Any:
    return RNG.uniform(0.5, 2, shape).astype(np.float32)


def _gather(name: str, bits: int, width: int = 48, *, zeros: bool = False, at: Any = AT) -> Case:
    """A GatherBlockQuantized whose quantized levels are stored in bytes."""
    blocks, share = -(-width // BLOCK), 8 // bits
    inputs = {"data": RNG.integers(0, 256, (ROWS, width // share)).astype(np.uint8), "at": at}
    inputs |= {"scales": _scales(ROWS, blocks)}
    inputs |= {"zeros": RNG.integers(0, 256, (ROWS, -(-blocks // share))).astype(np.uint8) if zeros else None}
    weights = ["data", "scales", *(["zeros"] if zeros else [])]
    attributes = {"bits": bits, "block_size": BLOCK, "quantize_axis": 1, "gather_axis": 0}
    return microsoft(f"GatherBlockQuantized {name}", inputs, weights=weights, attributes=attributes)


def _product(name: str, bits: int, *, zeros: bool = False, width: int = 48, bias: bool = False) -> Case:
    blocks, share, columns = width // BLOCK, 8 // bits, 5
    inputs = {"a": floats(3, width), "b": RNG.integers(0, 256, (columns, blocks, BLOCK // share)).astype(np.uint8)}
    inputs |= {"scales": _scales(columns, blocks)}
    points = RNG.integers(0, 256, (columns, -(-blocks // share))).astype(np.uint8)
    inputs |= {"zeros": points if zeros else None, "groups": None, "bias": floats(columns) if bias else None}
    weights = [each for each in ("b", "scales", "zeros", "bias") if inputs[each] is not None]
    attributes = {"bits": bits, "block_size": BLOCK, "K": width, "N": columns}
    return microsoft(f"MatMulNBits {name}", inputs, weights=weights, attributes=attributes, atol=1e-3)


CASES = [
    *(_gather(f"{bits} bits", bits) for bits in (2, 4, 8)),
    *(_gather(f"{bits} bits with zero points", bits, zeros=True) for bits in (2, 4, 8)),
    _gather("4 bits, last block cut", 4, 40, zeros=True),
    _gather("4 bits, one row", 4, at=np.array(3, np.int64)),
    *(_product(f"{bits} bits", bits) for bits in (2, 4, 8)),
    *(_product(f"{bits} bits with zero points", bits, zeros=True) for bits in (2, 4, 8)),
    _product("2 bits with bias", 2, bias=True),
]
