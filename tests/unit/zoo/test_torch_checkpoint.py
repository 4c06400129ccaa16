"""Checkpoints are written here as PyTorch writes them, with stand-ins for its names in the pickle."""

import io
import os
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.examples import examples
from triune.core.errors import InvalidArgumentError
from triune.zoo import torch_checkpoint
from triune.zoo.torch_checkpoint import read_checkpoint

MAGIC = 0x1950A86A20F9469CFC6C
FACTS = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


class Stored:
    """A storage in a pickle."""

    def __init__(self, kind: type, key: str, count: int) -> None:
        self.pid = ("storage", kind, key, "cpu", count, None)


class Rebuilt:
    """A tensor in a pickle: what `_rebuild_tensor_v2` is called with."""

    def __init__(self, *arguments: object, state: object = None) -> None:
        self.arguments = arguments
        self.state = state

    def __reduce__(self) -> Any:
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2  # type: ignore[attr-defined]
        result = (rebuild, (*self.arguments, False, OrderedDict()))
        return result if self.state is None else (*result, self.state)


class Pickler(pickle.Pickler):
    def persistent_id(self, obj: object) -> Any:
        return obj.pid if isinstance(obj, Stored) else None


def dump(*values: object) -> bytes:
    stream = io.BytesIO()
    for value in values:
        Pickler(stream, 2).dump(value)
    return stream.getvalue()


def name(module: str, attribute: str, monkeypatch: pytest.MonkeyPatch, value: Any = None) -> Any:
    """Make `module.attribute` known to the pickler for this test."""
    value = value or type(attribute, (), {"__module__": module, "__qualname__": attribute})
    if module not in sys.modules:
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
    monkeypatch.setattr(sys.modules[module], attribute, value, raising=False)
    return value


@pytest.fixture
def float_storage(monkeypatch: pytest.MonkeyPatch) -> type:
    def rebuild() -> None:
        """Only its name is pickled."""

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    name("torch._utils", "_rebuild_tensor_v2", monkeypatch, rebuild)
    return name("torch", "FloatStorage", monkeypatch)


Write = Callable[..., bytes]


@pytest.fixture
def write(float_storage: type) -> Write:
    """A checkpoint of one tensor `w`, with everything about it open to change."""

    def write(
        offset: object = 0,
        shape: object = (2, 3),
        strides: object = (3, 1),
        count: object = 6,
        written: Sequence[float] = (0, 1, 2, 3, 4, 5),
        written_count: int | None = None,
        kind: Any = None,
        keys: object = ("7",),
        state: object = None,
    ) -> bytes:
        storage = Stored(kind or float_storage, "7", count)  # type: ignore[arg-type]
        tensors: Any = OrderedDict(w=Rebuilt(storage, offset, shape, strides)) if state is None else state
        if isinstance(tensors, OrderedDict):
            tensors._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
        content = dump(MAGIC, 1001, FACTS, tensors, list(keys) if isinstance(keys, tuple) else keys)
        number = len(written) if written_count is None else written_count
        return content + struct.pack("<Q", number) + np.array(written, "<f4").tobytes()

    return write


def test_tensors_come_as_views(write: Write) -> None:
    content = write()
    (tensor,) = read_checkpoint(content).values()
    np.testing.assert_array_equal(tensor, np.arange(6, dtype=np.float32).reshape(2, 3))
    assert not tensor.flags.writeable
    assert np.shares_memory(tensor, np.frombuffer(content, np.uint8))


def test_offset_and_strides_count(write: Write) -> None:
    transposed = read_checkpoint(write(shape=(2, 2), strides=(1, 3), offset=1))["w"]
    np.testing.assert_array_equal(transposed, [[1, 4], [2, 5]])
    assert read_checkpoint(write(shape=(), strides=()))["w"].item() == 0
    assert read_checkpoint(write(shape=(0, 3), strides=(3, 1), offset=9))["w"].shape == (0, 3)


class Call:
    """A pickle that calls `function` when it is read."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


@pytest.mark.parametrize("place", ["the magic number", "the facts", "the state", "a value", "the keys"])
@pytest.mark.parametrize("how", ["system", "eval", "numpy", "attribute", "opcodes"])
def test_nothing_is_called(write: Write, tmp_path: Path, place: str, how: str) -> None:
    trace = tmp_path / "called"
    code = f"__import__('pathlib').Path({str(trace)!r}).touch()"
    attacks: dict[str, Any] = {
        "system": Call(os.system, f"touch {trace}"),
        "eval": Call(eval, code),
        "numpy": Call(np.fromfile, str(trace)),
        "attribute": Call(getattr, OrderedDict, "fromkeys"),
        "opcodes": Call(exec, code),
    }
    attack = attacks[how]
    values: list[Any] = [MAGIC, 1001, FACTS, OrderedDict(), []]
    match place:
        case "the magic number":
            values[0] = attack
        case "the facts":
            values[2] = {"little_endian": attack}
        case "the state":
            values[3] = attack
        case "a value":
            values[3] = OrderedDict(w=attack)
        case _:
            values[4] = [attack]
    content = dump(*values)
    if how == "opcodes":
        # INST, STACK_GLOBAL and NEWOBJ name and call things by other ways than GLOBAL and REDUCE.
        instance = b"\x80\x02(U" + bytes([len(code)]) + code.encode() + b"ibuiltins\nexec\n."
        stacked = b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R."
        created = b"\x80\x02csubprocess\nPopen\n(U\x04truet\x81."
        for pickled in (instance, stacked, created):
            with pytest.raises(InvalidArgumentError, match="has no need of that"):
                read_checkpoint(pickled)
    with pytest.raises(InvalidArgumentError, match="refused at byte .* has no need of that"):
        read_checkpoint(content)
    assert not trace.exists()


def test_state_of_tensors_cannot_be_changed(write: Write, float_storage: type) -> None:
    storage = Stored(float_storage, "7", 6)
    for state in ({"shape": (2**40,)}, (None, {"shape": (2**40,)}), (None, {"strides": (-1, -1)})):
        attack = OrderedDict(w=Rebuilt(storage, 0, (2, 3), (3, 1), state=state))
        with pytest.raises(InvalidArgumentError, match="refused"):
            read_checkpoint(write(state=attack))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (3, 3)}, "reaches element 8 of a storage of 6"),
        ({"offset": 1}, "reaches element 6"),
        ({"strides": (2**47, 1)}, "reaches element 140737488355330"),
        ({"strides": (0, 0), "shape": (2**20, 2**20)}, "has 1099511627776 elements"),
        ({"strides": (-3, 1)}, "refused"),
        ({"offset": -1}, "refused"),
        ({"offset": "0"}, "refused"),
        ({"shape": (2, 3.0)}, "refused"),
        ({"shape": [2, 3]}, "refused"),
        ({"shape": (6,)}, "1 dimensions with 2 strides"),
        ({"shape": (1,) * 40, "strides": (1,) * 40}, "40 dimensions"),
        ({"count": -1}, "refused"),
        ({"count": "6"}, "refused"),
        ({"count": 7}, "has 6 elements (7 were announced)"),
        ({"written_count": 2**63}, "has 9223372036854775808 elements"),
        ({"written_count": 6, "written": (0, 1)}, "ends at byte"),
        ({"kind": str}, "refused"),
        ({"keys": ("8",)}, "no tensor uses the storage '8'"),
        ({"keys": (8,)}, "no tensor uses the storage 8"),
        ({"keys": ()}, "the storages ['7'] are missing"),
        ({"keys": "7"}, "list of its storages"),
        ({"state": {"w": 5}}, "'w' is a int, not a tensor"),
        ({"state": [1]}, "expected a state dict"),
    ],
)
def test_hostile_tensors_are_refused(write: Write, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        read_checkpoint(write(**change))
    assert message in str(caught.value)


def test_other_formats_are_named(write: Write) -> None:
    for content, message in (
        (b"", "refused"),
        (b"PK\x03\x04" + bytes(100), "cannot be read as a zip file"),
        (dump(1), "not a file of PyTorch's"),
        (dump(MAGIC, 1002), "protocol 1002"),
        (dump(MAGIC, 1001, {"little_endian": False}), "only little-endian"),
    ):
        with pytest.raises(InvalidArgumentError, match=message):
            read_checkpoint(content)


def zipped(content: bytes, *, compression: int = zipfile.ZIP_STORED, **changes: bytes | None) -> bytes:
    """The newer format with what the older one holds: `changes` are other members, or without one, by name."""
    stream = io.BytesIO(content)
    for _ in range(3):
        pickle.load(stream)
    begin = stream.tell()
    torch_checkpoint._load(stream)
    state = content[begin : stream.tell()]
    members = {"data.pkl": state, "byteorder": b"little", "data/7": content[-24:], "version": b"3\n"}
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", compression) as archive:
        for key, value in (members | {name.replace("__", "/"): value for name, value in changes.items()}).items():
            if value is not None:
                archive.writestr(f"archive/{key}", value)
    return target.getvalue()


def test_the_newer_format_holds_the_same(write: Write) -> None:
    (tensor,) = read_checkpoint(zipped(write())).values()
    np.testing.assert_array_equal(tensor, np.arange(6, dtype=np.float32).reshape(2, 3))
    assert not tensor.flags.writeable


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__7": None}, "storage '7' is missing"),
        ({"data__7": bytes(20)}, "has 20 bytes; 6 elements of float32 were announced"),
        ({"byteorder": b"big"}, "only little-endian"),
        ({"data.pkl": None}, "no data.pkl"),
        ({"data.pkl": b"cos\nsystem\n(S'true'\ntR."}, "it names os.system"),
        ({"data.pkl": dump([1, 2])}, "expected a state dict, found a list"),
        ({"compression": zipfile.ZIP_DEFLATED}, "is compressed"),
    ],
    ids=str,
)
def test_hostile_zip_files_are_refused(write: Write, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        read_checkpoint(zipped(write(), **changes))
    assert message in str(caught.value)


def test_every_cut_of_a_zip_file_is_refused(write: Write) -> None:
    content = zipped(write())
    for length in range(len(content)):
        with pytest.raises(InvalidArgumentError):
            read_checkpoint(content[:length])


def test_a_small_pickle_takes_little_memory() -> None:
    """Nested pairs describe 2**60 values in 200 bytes: naming them in a message must not write them out."""
    nested = b"\x80\x02K\x01" + b"2\x86" * 60 + b"."
    with pytest.raises(InvalidArgumentError):
        read_checkpoint(dump(MAGIC) + nested)
    # A memo index of 2**32 - 1.
    with pytest.raises(InvalidArgumentError):
        read_checkpoint(b"\x80\x02K\x01r\xff\xff\xff\xff.")


def test_every_cut_is_refused(write: Write) -> None:
    content = write()
    for length in range(len(content)):
        with pytest.raises(InvalidArgumentError):
            read_checkpoint(content[:length])


@examples(300)
@given(data=st.data())
def test_no_bytes_do_anything_else(data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        kind = name("torch", "FloatStorage", monkeypatch)
        rebuild = types.FunctionType(dump.__code__, {}, "rebuild")
        rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
        name("torch._utils", "_rebuild_tensor_v2", monkeypatch, rebuild)
        state = OrderedDict(w=Rebuilt(Stored(kind, "7", 6), 0, (2, 3), (3, 1)))
        content = bytearray(dump(MAGIC, 1001, FACTS, state, ["7"]) + struct.pack("<Q", 6) + bytes(24))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        tensors = read_checkpoint(bytes(content))
    except InvalidArgumentError:
        return
    assert all(each.nbytes <= len(content) and each.sum() is not None for each in tensors.values())
