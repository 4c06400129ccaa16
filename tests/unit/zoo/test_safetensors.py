import json
import struct
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triune.core.errors import InvalidArgumentError
from triune.zoo.safetensors import read_safetensors


def encode(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_tensors_come_as_views() -> None:
    first, second = np.arange(6, dtype="<f4").reshape(2, 3), np.array([1, 2], ml_dtypes.bfloat16)
    header = {
        "__metadata__": {"format": "pt"},
        "b": entry("BF16", [2], [24, 28]),
        "a": entry("F32", [2, 3], [0, 24]),
        "nothing": entry("I64", [0, 7], [28, 28]),
        "scalar": entry("I8", [], [28, 29]),
    }
    content = encode(header, first.tobytes() + second.tobytes() + b"\xff")
    tensors = read_safetensors(content)
    assert set(tensors) == {"a", "b", "nothing", "scalar"}
    np.testing.assert_array_equal(tensors["a"], first)
    np.testing.assert_array_equal(tensors["b"], second)
    assert tensors["nothing"].shape == (0, 7)
    assert tensors["scalar"].item() == -1
    assert not tensors["a"].flags.writeable
    assert np.shares_memory(tensors["a"], np.frombuffer(content, np.uint8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes are fewer than the 8"),
        (b"\x01\x00", "2 bytes"),
        (struct.pack("<Q", 2**63), "claims 9223372036854775808 bytes"),
        (struct.pack("<Q", 3) + b"{}", "claims 3 bytes; 2 follow"),
        (struct.pack("<Q", 100_000_001) + bytes(16), "allows 100000000"),
        (encode(b"{"), "not JSON"),
        (encode(b"\xff\xfe\xfd"), "not JSON"),
        (encode(b"[" * 100_000), "not JSON"),
        (encode([]), "is a list"),
        (encode({"a": 1}), "'a' needs exactly dtype"),
        (encode({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)), "needs exactly"),
        (encode({"a": entry() | {"extra": 1}}, bytes(8)), "needs exactly"),
        (encode({"a": entry(dtype=5)}, bytes(8)), "needs exactly"),
        (encode({"a": entry(offsets=[0, 4, 8])}, bytes(8)), "two offsets"),
        (encode({"a": entry(offsets=[8])}, bytes(8)), "two offsets"),
        (encode({"a": entry(shape=[-2])}, bytes(8)), "expected counts"),
        (encode({"a": entry(shape=[True, 2])}, bytes(8)), "expected counts"),
        (encode({"a": entry(shape=[2.0])}, bytes(8)), "expected counts"),
        (encode({"a": entry(shape=["2"])}, bytes(8)), "expected counts"),
        (encode({"a": entry(offsets=[-8, 0])}, bytes(8)), "expected counts"),
        (encode({"a": entry(dtype="F33")}, bytes(8)), "dtype 'F33'; known are BOOL"),
        (encode({"a": entry(offsets=[0, 16])}, bytes(8)), "lies at 0 to 16 of 8"),
        (encode({"a": entry(offsets=[8, 0])}, bytes(8)), "lies at 8 to 0"),
        (encode({"a": entry(shape=[3])}, bytes(8)), "needs 12 bytes; its offsets give 8"),
        (encode({"a": entry(shape=[2**40, 2**40])}, bytes(8)), "its offsets give 8"),
        (encode({"a": entry(shape=[1] * 40, offsets=[0, 4])}, bytes(4)), "40 dimensions"),
        (encode({"a": entry(), "b": entry()}, bytes(8)), "'b' starts at 0, not 8: it overlaps"),
        (encode({"a": entry(), "b": entry(offsets=[12, 20])}, bytes(20)), "leaves a hole"),
        (encode({"a": entry()}, bytes(9)), "1 bytes belong to no tensor"),
        (encode(b'{"a": {"dtype": "U8", "shape": [], "data_offsets": [0, 1]}, "a": 1}', b"1"), "given twice"),
    ],
)
def test_hostile_files_are_refused(content: bytes, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        read_safetensors(content)
    assert message in str(caught.value)


@given(st.binary(max_size=200), st.integers(0, 60))
def test_no_bytes_do_anything_else(noise: bytes, position: int) -> None:
    whole = encode({"a": entry()}, bytes(8))
    for content in (noise, encode(noise), whole[:position] + noise + whole[position:]):
        try:
            tensors = read_safetensors(content)
        except InvalidArgumentError:
            continue
        assert sum(each.nbytes for each in tensors.values()) <= len(content)
