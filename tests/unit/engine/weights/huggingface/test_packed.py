"""Packed layouts, written here word by word as their tools describe them, and read back."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.engine.weights import DenseTensor, PackedTensor
from triune.engine.weights.huggingface.packed import packed_shape, read_packed, read_packing
from triune.engine.weights.huggingface.store import Store
from triune.engine.weights.pack import Inexact

_ROWS, _COLUMNS, _GROUP = 16, 64, 32
_GROUPS = _COLUMNS // _GROUP
_Integers = NDArray[np.int64]


def _words(numbers: _Integers, bits: int, order: list[int] | None = None) -> NDArray[np.int32]:
    """Numbers [n, m] into INT32 [n, m * bits / 32] along the rows."""
    count = 32 // bits
    order = order or list(range(count))
    words = np.zeros((numbers.shape[0], numbers.shape[1] // count), np.uint64)
    for row in range(words.shape[0]):
        for word in range(words.shape[1]):
            for place, column in enumerate(order):
                words[row, word] |= np.uint64(int(numbers[row, word * count + column]) << (place * bits))
    return words.astype(np.uint32).view(np.int32)


def _random(bits: int) -> tuple[_Integers, _Integers, NDArray[np.float16]]:
    rng = np.random.default_rng(bits)
    codes = rng.integers(0, 1 << bits, (_ROWS, _COLUMNS))
    zeros = rng.integers(1, 1 << bits, (_ROWS, _GROUPS))
    return codes, zeros, rng.uniform(0.01, 0.1, (_ROWS, _GROUPS)).astype(np.float16)


def _truth(codes: _Integers, zeros: _Integers, scales: NDArray[np.float16], order: _Integers) -> NDArray[np.float32]:
    return ((codes - zeros[:, order]) * scales[:, order].astype(np.float64)).astype(np.float32)


_ORDER = np.arange(_COLUMNS) // _GROUP


def _store(tmp_path: Path, tensors: dict[str, NDArray[np.generic]]) -> Store:
    contiguous = {name: np.ascontiguousarray(each) for name, each in tensors.items()}
    save_file({f"m.{name}": each for name, each in contiguous.items()}, tmp_path / "model.safetensors")
    return Store(tmp_path)


def test_awq(tmp_path: Path) -> None:
    codes, zeros, scales = _random(4)
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    tensors = {"qweight": _words(codes.T, 4, order), "qzeros": _words(zeros.T, 4, order), "scales": scales.T}
    packing = read_packing({"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": _GROUP}}, "config")
    assert packing is not None
    store = _store(tmp_path, tensors)
    assert packed_shape(store, "m", packing) == (_ROWS, _COLUMNS)
    tensor = read_packed(store, "m", packing, "dequantize")
    assert isinstance(tensor, PackedTensor)
    assert (tensor.bits, tensor.block_size, tensor.regrouped) == (4, _GROUP, None)
    np.testing.assert_array_equal(tensor.dequantize(), _truth(codes, zeros, scales, _ORDER))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("form", ["gptq", "gptq_v2"])
@pytest.mark.parametrize("is_ordered", [True, False])
def test_gptq(bits: int, form: str, is_ordered: bool, tmp_path: Path) -> None:
    codes, zeros, scales = _random(bits)
    order = np.random.default_rng(1).permutation(_ORDER) if is_ordered else _ORDER
    stored = zeros - 1 if form == "gptq" else zeros
    tensors = {
        "qweight": _words(codes, bits).T,
        "qzeros": _words(stored.T, bits),
        "scales": scales.T,
        "g_idx": order.astype(np.int32),
    }
    settings = {"quant_method": "gptq", "bits": bits, "group_size": _GROUP, "checkpoint_format": form}
    packing = read_packing({"quantization_config": settings}, "config")
    assert packing is not None
    tensor = read_packed(_store(tmp_path, tensors), "m", packing, "dequantize")
    # Columns in an order of their own have no blocks.
    assert isinstance(tensor, DenseTensor if is_ordered else PackedTensor)
    np.testing.assert_array_equal(tensor.dequantize(), _truth(codes, zeros, scales, order))


def test_a_zero_point_of_gptq_that_is_no_code(tmp_path: Path) -> None:
    codes, zeros, scales = _random(4)
    zeros[3, 1] = 16
    tensors = {"qweight": _words(codes, 4).T, "qzeros": _words((zeros - 1).T, 4), "scales": scales.T}
    packing = read_packing({"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": _GROUP}}, "config")
    assert packing is not None
    tensor = read_packed(_store(tmp_path, tensors), "m", packing, "dequantize")
    assert isinstance(tensor, PackedTensor)
    assert tensor.bits == 8
    np.testing.assert_array_equal(tensor.dequantize(), _truth(codes, zeros, scales, _ORDER))


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("inexact", ["dequantize", "offsets", "regroup", "widen"])
def test_mlx(bits: int, inexact: Inexact, tmp_path: Path) -> None:
    rng = np.random.default_rng(bits)
    codes = rng.integers(0, 1 << bits, (_ROWS, _COLUMNS))
    scales = rng.uniform(0.01, 0.1, (_ROWS, _GROUPS)).astype(np.float16)
    biases = (-scales * (1 << (bits - 1))).astype(np.float16)
    # One after another, the lowest bits first, in words of 32.
    stream = [sum(code << (bits * place) for place, code in enumerate(row)) for row in codes.tolist()]
    words = np.array(
        [[number >> (32 * word) & 0xFFFFFFFF for word in range(_COLUMNS * bits // 32)] for number in stream], np.uint32
    )
    packing = read_packing({"quantization": {"bits": bits, "group_size": _GROUP}}, "config")
    assert packing is not None
    store = _store(tmp_path, {"weight": words, "scales": scales, "biases": biases})
    assert packed_shape(store, "m", packing) == (_ROWS, _COLUMNS)
    tensor = read_packed(store, "m", packing, inexact)
    truth = codes * np.repeat(scales, _GROUP, 1).astype(np.float32) + np.repeat(biases, _GROUP, 1).astype(np.float32)
    if inexact in {"dequantize", "offsets"}:
        np.testing.assert_array_equal(tensor.dequantize(), truth.astype(np.float32))
    else:
        # MLX chooses offsets that are whole numbers of steps, so nothing is lost but the last bit.
        np.testing.assert_allclose(tensor.dequantize(), truth, atol=2e-3)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemv"}, "version 'gemm'"),
        ({"quant_method": "gptq", "bits": 3, "group_size": 32}, "gptq of 3 bits"),
        ({"quant_method": "bitsandbytes"}, "'bitsandbytes'"),
        ({"bits": 4, "group_size": 32, "mode": "mxfp4"}, "mode is 'mxfp4'"),
    ],
)
def test_what_is_not_known(config: dict[str, object], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        read_packing({"quantization_config": config}, "config")


def test_parts_that_do_not_fit(tmp_path: Path) -> None:
    codes, zeros, scales = _random(4)
    tensors = {"qweight": _words(codes, 4).T, "qzeros": _words(zeros.T, 4), "scales": scales.T[:1]}
    packing = read_packing({"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": _GROUP}}, "config")
    assert packing is not None
    with pytest.raises(InvalidArgumentError, match=r"scales F16\[1, 16\] are no matrix in gptq's layout of 4 bits"):
        packed_shape(_store(tmp_path, tensors), "m", packing)
    del tensors["qzeros"]
    with pytest.raises(InvalidArgumentError, match=r"m is packed as gptq, but m\.qzeros is missing"):
        packed_shape(_store(tmp_path, tensors), "m", packing)
    tensors = {"qweight": _words(codes, 4).T, "qzeros": _words(zeros.T, 4), "scales": np.full_like(scales.T, np.nan)}
    with pytest.raises(InvalidArgumentError, match="a scale of its weights is not finite"):
        read_packed(_store(tmp_path, tensors), "m", packing, "dequantize")
