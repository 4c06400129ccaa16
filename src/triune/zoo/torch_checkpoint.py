"""Read PyTorch's checkpoints without PyTorch, with an unpickler that accepts only tensors.

The format before 1.6: five pickles one after another (magic number, protocol version, system facts, the object, the
keys of its storages), then for each key an unsigned 64-bit little-endian count of elements and the elements themselves.
The format since: a zip file without compression, with the object in `data.pkl` and each storage in `data/KEY`, all in
one folder.
"""

import io
import math
import pickle
import reprlib
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_ZIP_MAGIC = b"PK\x03\x04"
_OBJECT = "data.pkl"


def read_checkpoint(content: bytes) -> dict[str, Array]:
    """Read the tensors of a state dict by name. The arrays are read-only views of `content`.

    Raises:
        InvalidArgumentError: the file is not a checkpoint, is truncated, or has anything but tensors in it.
    """
    if content.startswith(_ZIP_MAGIC):
        return _read_zip(content)
    stream = io.BytesIO(content)
    if _load(stream) != _MAGIC:
        raise InvalidArgumentError("checkpoint: the magic number is missing; this is not a file of PyTorch's")
    if (protocol := _load(stream)) != _PROTOCOL:
        raise InvalidArgumentError(f"checkpoint: protocol {_show(protocol)}; only {_PROTOCOL} is read")
    match _load(stream):
        case {"little_endian": True}:
            pass
        case facts:
            raise InvalidArgumentError(f"checkpoint: only little-endian ones are read, this one says {_show(facts)}")
    tensors = _tensors(_load(stream))
    keys = _load(stream)
    if not isinstance(keys, list):
        raise InvalidArgumentError("checkpoint: expected the list of its storages")
    storages = _read_storages(content, stream.tell(), cast("list[object]", keys), tensors)
    return {name: tensor.view(name, storages) for name, tensor in tensors.items()}


# The unpickler makes only named tuples and an object without attributes. A pickle's BUILD operation, which sets
# attributes, cannot change any of them.
class _StorageType(NamedTuple):
    dtype: np.dtype[Any]


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype[Any]
    num_elements: int


class _Tensor(NamedTuple):
    """A tensor as the pickle describes it: a view of a storage. Offset and strides are in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def view(self, name: str, storages: Mapping[str, Array]) -> Array:
        elements = storages[self.storage.key]
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        count = math.prod(self.shape)
        if count and (last >= len(elements) or count > len(elements)):
            raise InvalidArgumentError(
                f"checkpoint: tensor {name!r} has {count} elements and reaches element {last} "
                f"of a storage of {len(elements)}"
            )
        # Begin a view at the end of the storage at most: an empty tensor may begin after it.
        window = elements[min(self.offset, len(elements)) :]
        strides = tuple(stride * elements.itemsize for stride in self.strides)
        return np.lib.stride_tricks.as_strided(window, self.shape, strides, writeable=False)


class _StateDict(OrderedDict[object, object]):
    """A dict that ignores the attributes that PyTorch sets on its own (`_metadata`)."""

    def __setstate__(self, state: object) -> None:
        pass


class _RebuildTensor:
    __slots__ = ()

    def __call__(self, storage: object, offset: object, shape: object, strides: object, *_: object) -> _Tensor:
        if not (
            isinstance(storage, _Storage) and _are_counts((offset,)) and _are_counts(shape) and _are_counts(strides)
        ):
            raise pickle.UnpicklingError(f"a tensor of {_show((storage, offset, shape, strides))}")
        sizes, steps = cast("tuple[int, ...]", shape), cast("tuple[int, ...]", strides)
        if len(sizes) != len(steps) or len(sizes) > 32:
            raise pickle.UnpicklingError(f"a tensor of {len(sizes)} dimensions with {len(steps)} strides")
        return _Tensor(storage, cast(int, offset), sizes, steps)


def _are_counts(values: object) -> bool:
    return isinstance(values, tuple) and all(
        type(each) is int and 0 <= each < 2**48 for each in cast("tuple[object, ...]", values)
    )


def _show(value: object) -> str:
    """A short repr: a pickle of a few bytes can describe a value whose full repr would fill the memory."""
    return reprlib.repr(value)


class _Unpickler(pickle._Unpickler):  # pyright: ignore[reportPrivateUsage]
    """An unpickler that accepts only the few globals that a state dict needs. Any other global is an error, which is
    raised before anything is called.

    Its base is the unpickler that is written in Python: the one written in C allocates as many memo entries as a few
    bytes may ask for.
    """

    _NAMES: ClassVar[Mapping[tuple[str, str], object]] = {
        ("collections", "OrderedDict"): _StateDict,
        ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
        ("torch", "DoubleStorage"): _StorageType(np.dtype("<f8")),
        ("torch", "FloatStorage"): _StorageType(np.dtype("<f4")),
        ("torch", "HalfStorage"): _StorageType(np.dtype("<f2")),
        ("torch", "LongStorage"): _StorageType(np.dtype("<i8")),
        ("torch", "IntStorage"): _StorageType(np.dtype("<i4")),
        ("torch", "ShortStorage"): _StorageType(np.dtype("<i2")),
        ("torch", "CharStorage"): _StorageType(np.dtype("<i1")),
        ("torch", "ByteStorage"): _StorageType(np.dtype("<u1")),
        ("torch", "BoolStorage"): _StorageType(np.dtype(np.bool_)),
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._NAMES[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it names {module}.{name}, and a state dict of tensors has no need of that"
            ) from None

    def persistent_load(self, pid: object) -> Any:
        match pid:
            # In the older format, None follows: the storage is not a view of another one.
            case ("storage", _StorageType() as kind, str(key), str(), int(count), None) | (
                "storage",
                _StorageType() as kind,
                str(key),
                str(),
                int(count),
            ) if 0 <= count < 2**48:
                return _Storage(key, kind.dtype, count)
            case _:
                raise pickle.UnpicklingError(f"a storage described as {_show(pid)}")


def _load(stream: io.BytesIO) -> object:
    try:
        return cast(object, _Unpickler(stream).load())
    # A manipulated pickle can fail in many ways. However it fails, no code from it was called.
    except Exception as error:  # noqa: BLE001
        raise InvalidArgumentError(f"checkpoint: refused at byte {stream.tell()}: {error or repr(error)}") from None


def _read_zip(content: bytes) -> dict[str, Array]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {each.filename: each for each in archive.infolist()}
            folder = next((name.removesuffix(_OBJECT) for name in members if name.endswith(f"/{_OBJECT}")), None)
            if folder is None:
                raise InvalidArgumentError(f"checkpoint: the zip file has no {_OBJECT}")
            # Refuse entries that overlap: without compression, contents are larger than the file only then.
            if sum(each.file_size for each in members.values()) > len(content):
                raise InvalidArgumentError("checkpoint: the entries of the zip file are larger than the file")
            if packed := [name for name, each in members.items() if each.compress_type != zipfile.ZIP_STORED]:
                raise InvalidArgumentError(f"checkpoint: {packed[0]!r} is compressed, which PyTorch never does")
            order = f"{folder}byteorder"
            if order in members and archive.read(order) != b"little":
                raise InvalidArgumentError("checkpoint: only little-endian ones are read")
            tensors = _tensors(_load(io.BytesIO(archive.read(f"{folder}{_OBJECT}"))))
            storages: dict[str, Array] = {}
            for storage in {tensor.storage for tensor in tensors.values()}:
                name = f"{folder}data/{storage.key}"
                if name not in members:
                    raise InvalidArgumentError(f"checkpoint: the storage {storage.key!r} is missing")
                if members[name].file_size != storage.num_elements * storage.dtype.itemsize:
                    raise InvalidArgumentError(
                        f"checkpoint: storage {storage.key!r} has {members[name].file_size} bytes; "
                        f"{storage.num_elements} elements of {storage.dtype} were announced"
                    )
                storages[storage.key] = np.frombuffer(archive.read(name), storage.dtype)
    # Catch all exceptions that reading a broken zip file may raise.
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        raise InvalidArgumentError(f"checkpoint: cannot be read as a zip file: {error}") from error
    return {name: tensor.view(name, storages) for name, tensor in tensors.items()}


def _tensors(state: object) -> dict[str, _Tensor]:
    if not isinstance(state, dict):
        raise InvalidArgumentError(f"checkpoint: expected a state dict, found a {type(state).__name__}")
    tensors: dict[str, _Tensor] = {}
    for name, value in cast("dict[object, object]", state).items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise InvalidArgumentError(f"checkpoint: {_show(name)} is a {type(value).__name__}, not a tensor")
        tensors[name] = value
    return tensors


def _read_storages(
    content: bytes, position: int, keys: list[object], tensors: Mapping[str, _Tensor]
) -> dict[str, Array]:
    """Read the storages after the pickles, each as a flat array."""
    expected = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    found: dict[str, Array] = {}
    for key in keys:
        storage = expected.get(key) if isinstance(key, str) else None
        if storage is None:
            raise InvalidArgumentError(f"checkpoint: no tensor uses the storage {_show(key)}")
        count = int.from_bytes(content[position : position + 8], "little")
        begin = position + 8
        position = begin + count * storage.dtype.itemsize
        if count != storage.num_elements or position > len(content):
            raise InvalidArgumentError(
                f"checkpoint: storage {key!r} has {count} elements ({storage.num_elements} were announced) "
                f"and ends at byte {position} of {len(content)}"
            )
        found[storage.key] = np.frombuffer(content, storage.dtype, count, begin)
    if missing := expected.keys() - found.keys():
        raise InvalidArgumentError(f"checkpoint: the storages {sorted(missing)} are missing")
    return found
