"""Read MIL's types and constants from their protobuf."""

import math
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreml.mil import Array, Constant, DictionaryType, DType, ListType, Packed, StateType, TensorType, Type
from triune.coreml.weights import Weights

# The largest size of a dimension that is read, since indices are int32 in Core ML; the largest number of elements, for
# which no machine has room; and the largest number of dimensions.
_LARGEST_SIZE = 2**31 - 1
_MOST_ELEMENTS = 2**44
_MOST_DIMENSIONS = 16

DTYPES = MappingProxyType(
    {
        1: DType.BOOL,
        2: DType.STRING,
        10: DType.FP16,
        11: DType.FP32,
        12: DType.FP64,
        13: DType.BF16,
        21: DType.INT8,
        22: DType.INT16,
        23: DType.INT32,
        24: DType.INT64,
        25: DType.INT4,
        31: DType.UINT8,
        32: DType.UINT16,
        33: DType.UINT32,
        34: DType.UINT64,
        35: DType.UINT4,
        36: DType.UINT2,
        37: DType.UINT1,
        38: DType.UINT6,
        39: DType.UINT3,
    }
)
"""Element types by their numbers in MIL's protobuf."""


def read_type(proto: Any, where: str) -> Type:
    """Read the type of a value.

    Args:
        proto: `MIL_pb2.ValueType`.
        where: the value's name in error messages.

    Raises:
        InvalidArgumentError: the type is malformed: it has no kind, a size is out of range, or it is a list of lists.
        UnsupportedError: the element type or the kind is not known.
    """
    match proto.WhichOneof("type"):
        case "tensorType":
            return _tensor_type(proto.tensorType, where)
        case "listType":
            element = read_type(proto.listType.type, where)
            return ListType(_as_tensor(element, "a list", where), _dimension(proto.listType.length, where))
        case "stateType":
            return StateType(_as_tensor(read_type(proto.stateType.wrappedType, where), "a state", where))
        case "dictionaryType":
            key = _as_tensor(read_type(proto.dictionaryType.keyType, where), "a dictionary", where)
            value = _as_tensor(read_type(proto.dictionaryType.valueType, where), "a dictionary", where)
            return DictionaryType(key.dtype, value.dtype)
        case None:
            raise InvalidArgumentError(f"{where}: it has no type")
        case other:
            raise UnsupportedError(f"{where}: values of kind '{other}' are not known")


def read_value(proto: Any, weights: Weights, where: str) -> Constant:
    """Read a constant from the protobuf or from a weight file.

    Args:
        proto: `MIL_pb2.Value`.
        weights: opens the weight files.
        where: the value's name in error messages.

    Raises:
        InvalidArgumentError: the constant does not have the size of its type, or is not in its file.
        NotFoundError: the weight file does not exist.
        UnsupportedError: the kind of value is not known.
    """
    kind = read_type(proto.type, where)
    if isinstance(kind, ListType):
        return _list(proto, kind, weights, where)
    if not isinstance(kind, TensorType):
        raise UnsupportedError(f"{where}: a constant that is neither a tensor nor a list")
    shape = _static(kind, where)
    match proto.WhichOneof("value"):
        case "blobFileValue":
            blob = proto.blobFileValue
            try:
                return weights.open(str(blob.fileName)).read(int(blob.offset), kind.dtype, shape)
            except InvalidArgumentError as error:
                raise InvalidArgumentError(f"{where}: {error}") from error
        case "immediateValue":
            if proto.immediateValue.WhichOneof("value") != "tensor":
                raise InvalidArgumentError(f"{where}: its type is a tensor, but its value is none")
            return _tensor(proto.immediateValue.tensor, kind.dtype, shape, where)
        case _:
            raise InvalidArgumentError(f"{where}: it has no value")


def _tensor_type(proto: Any, where: str) -> TensorType:
    dtype = DTYPES.get(proto.dataType)
    if dtype is None:
        raise UnsupportedError(f"{where}: elements of MIL's type {proto.dataType} are not known")
    dimensions = list(proto.dimensions)
    if any(each.WhichOneof("dimension") == "unknown" and each.unknown.variadic for each in dimensions):
        return TensorType(dtype, None)
    if proto.rank != len(dimensions) or len(dimensions) > _MOST_DIMENSIONS:
        raise InvalidArgumentError(f"{where}: a rank of {proto.rank} with {len(dimensions)} dimensions")
    return TensorType(dtype, tuple(_dimension(each, where) for each in dimensions))


def _dimension(proto: Any, where: str) -> int | None:
    if proto.WhichOneof("dimension") != "constant":
        return None
    size = int(proto.constant.size)
    if size > _LARGEST_SIZE:
        raise InvalidArgumentError(f"{where}: a dimension of {size}; {_LARGEST_SIZE} is the most")
    return size


def _as_tensor(kind: Type, holder: str, where: str) -> TensorType:
    if not isinstance(kind, TensorType):
        raise InvalidArgumentError(f"{where}: {holder} of something that is not a tensor")
    return kind


def _static(kind: TensorType, where: str) -> tuple[int, ...]:
    shape = tuple(size for size in kind.shape or () if size is not None)
    if kind.shape is None or len(shape) < len(kind.shape):
        raise InvalidArgumentError(f"{where}: a constant whose shape is not known")
    if math.prod(max(size, 1) for size in shape) > _MOST_ELEMENTS:
        raise InvalidArgumentError(f"{where}: a constant of shape {list(shape)} is too large")
    return shape


def _list(proto: Any, kind: ListType, weights: Weights, where: str) -> Constant:
    if proto.WhichOneof("value") != "immediateValue" or proto.immediateValue.WhichOneof("value") != "list":
        raise InvalidArgumentError(f"{where}: its type is a list, but its value is none")
    elements = [read_value(each, weights, f"{where}[{i}]") for i, each in enumerate(proto.immediateValue.list.values)]
    if kind.length not in (None, len(elements)):
        raise InvalidArgumentError(f"{where}: {len(elements)} elements in a list of {kind.length}")
    for i, element in enumerate(elements):
        if element.dtype is not kind.element.dtype:
            raise InvalidArgumentError(f"{where}[{i}]: {element.dtype.value} in a list of {kind.element.dtype.value}")
    return Constant(tuple(element.array for element in elements), kind.element.dtype)


def _tensor(proto: Any, dtype: DType, shape: tuple[int, ...], where: str) -> Constant:
    field = proto.WhichOneof("value")
    count = math.prod(shape)
    if field is None:
        if count:
            raise InvalidArgumentError(f"{where}: it has no value")
        return Constant(np.empty(shape, dtype.numpy), dtype)
    if field == "bytes":
        return _from_bytes(proto.bytes.values, dtype, shape, where)
    values: Sequence[Any] = getattr(proto, field).values
    if len(values) != count:
        raise InvalidArgumentError(f"{where}: {len(values)} values, but the shape {list(shape)} takes {count}")
    return Constant(_convert(values, field, dtype, where).reshape(shape), dtype)


def _from_bytes(data: bytes, dtype: DType, shape: tuple[int, ...], where: str) -> Constant:
    if dtype in (DType.STRING, DType.BOOL):
        raise InvalidArgumentError(f"{where}: {dtype.value} cannot be given as bytes")
    expected = (math.prod(shape) * dtype.bits + 7) // 8
    if len(data) != expected:
        raise InvalidArgumentError(
            f"{where}: {len(data)} bytes, but {dtype.value} of shape {list(shape)} takes {expected}"
        )
    if dtype.bits < 8:
        return Constant(Packed(np.frombuffer(data, np.uint8), dtype.bits, dtype is DType.INT4, shape), dtype)
    return Constant(np.frombuffer(data, dtype.numpy).reshape(shape), dtype)


_KINDS = MappingProxyType({"floats": "f", "doubles": "f", "ints": "iu", "longInts": "iu", "bools": "b", "strings": "O"})
_WIDE = MappingProxyType({"floats": np.float32, "doubles": np.float64, "ints": np.int32, "longInts": np.int64})


def _convert(values: Sequence[Any], field: str, dtype: DType, where: str) -> Array:
    """Convert a repeated field to a vector of `dtype`. The numbers must be of the same kind as `dtype`, and in its
    range.
    """
    kind = "f" if dtype is DType.BF16 else dtype.numpy.kind
    if kind not in _KINDS[field] or dtype.bits in range(1, 8):
        raise InvalidArgumentError(f"{where}: {dtype.value} cannot be given as '{field}'")
    if field == "strings":
        texts = np.empty(len(values), np.object_)
        texts[:] = [str(value) for value in values]
        return texts
    if field == "bools":
        return np.array(values, np.bool_)
    wide = np.array(values, _WIDE[field])
    if kind in "iu" and wide.size:
        limits = np.iinfo(dtype.numpy)
        # Core ML stores uint32 in a field of int32, with the same bits. So a field as wide as the type is not checked.
        is_same_width = wide.dtype.itemsize == dtype.numpy.itemsize
        if not is_same_width and (int(wide.min()) < limits.min or int(wide.max()) > limits.max):
            raise InvalidArgumentError(f"{where}: values from {wide.min()} to {wide.max()} in {dtype.value}")
    return wide.astype(dtype.numpy)
