"""Values in MIL text: a type, and a literal in parentheses whose form the type decides.

    value     = type "(" literal ")"
    literal   = "BLOBFILE" "(" "path" "=" value "," "offset" "=" value ")"     of a tensor
              | scalar                                                         of a tensor without dimensions
              | "[" literal,* "]"                                              of a tensor or a list
              | "{" ("{" literal "," literal "}"),* "}"                        of a dictionary
              | "(" literal,* ")"                                              of a tuple
    scalar    = number | string | "true" | "false" | "inf" | "nan"

Floats are in C's hexadecimal form, which is exact; decimal floats, as people write them, are read, too.
"""

import math
from typing import Any

import numpy as np

from triune.coreml.mil import Array, DType
from triune.coreml.mil_text.lexer import Word, Words, string_of
from triune.coreml.mil_text.types import dtype_of, is_value_next, read_type_text
from triune.coreml.protos import mil_pb2

_BLOB = "BLOBFILE"
# Python refuses to parse longer numbers, and no model needs them.
_LONGEST_NUMBER = 400
_FLOATS = frozenset({DType.FP16, DType.FP32, DType.FP64, DType.BF16})


def read_value_text(words: Words) -> Any:
    """Parse a value to `MIL_pb2.Value`, with numbers as bytes.

    Raises:
        InvalidArgumentError: the value is malformed, its shape differs from its type, or a number is out of range.
        UnsupportedError: its type is unknown.
    """
    kind = read_type_text(words)
    words.expect("(")
    value = _literal(words, kind)
    words.expect(")")
    return value


def _literal(words: Words, kind: Any) -> Any:
    value = mil_pb2().Value()
    value.type.CopyFrom(kind)
    with words.nested():
        match kind.WhichOneof("type"):
            case "tensorType" if words.is_next(_BLOB):
                _fill_blob(words, value.blobFileValue)
            case "tensorType":
                _fill_tensor(words, kind.tensorType, value.immediateValue.tensor)
            case "listType":
                _fill_list(words, kind.listType.type, value.immediateValue.list)
            case "dictionaryType":
                _fill_dictionary(words, kind.dictionaryType, value.immediateValue.dictionary)
            case "tupleType":
                _fill_tuple(words, kind.tupleType, value.immediateValue.tuple)
            case _:
                words.fail("a state has no value")
    return value


def _element(words: Words, kind: Any) -> Any:
    """Parse a literal that is an element of another literal. The text may repeat the element's type before it."""
    return read_value_text(words) if is_value_next(words) and not words.is_next(_BLOB) else _literal(words, kind)


def _fill_list(words: Words, kind: Any, proto: Any) -> None:
    proto.SetInParent()
    words.expect("[")
    for _ in words.separated("]"):
        proto.values.append(_element(words, kind))


def _fill_dictionary(words: Words, kind: Any, proto: Any) -> None:
    proto.SetInParent()
    words.expect("{")
    for _ in words.separated("}"):
        words.expect("{")
        pair = proto.values.add()
        pair.key.CopyFrom(_element(words, kind.keyType))
        words.expect(",")
        pair.value.CopyFrom(_element(words, kind.valueType))
        words.expect("}")


def _fill_tuple(words: Words, kind: Any, proto: Any) -> None:
    proto.SetInParent()
    start = words.expect("(")
    kinds = list(kind.types)
    for _ in words.separated(")"):
        if len(proto.values) == len(kinds):
            words.fail(f"a tuple of more than {len(kinds)} values", start)
        proto.values.append(_element(words, kinds[len(proto.values)]))
    if len(proto.values) < len(kinds):
        words.fail(f"a tuple of {len(proto.values)} values; its type has {len(kinds)}", start)


def _fill_blob(words: Words, proto: Any) -> None:
    words.expect(_BLOB)
    words.expect("(")
    (proto.fileName,) = _scalar_of(words, "path", DType.STRING).strings.values
    words.expect(",")
    (proto.offset,) = np.frombuffer(_scalar_of(words, "offset", DType.UINT64).bytes.values, np.uint64).tolist()
    words.expect(")")


def _scalar_of(words: Words, name: str, dtype: DType) -> Any:
    """Parse `name = value` to a `MIL_pb2.TensorValue`; the value must be a scalar of the given element type."""
    words.expect(name)
    words.expect("=")
    start = words.peek()
    value = read_value_text(words)
    tensor = value.type.tensorType
    is_in_place = value.WhichOneof("value") == "immediateValue" and value.type.WhichOneof("type") == "tensorType"
    if not is_in_place or tensor.dimensions or dtype_of(tensor) is not dtype:
        words.fail(f"the {name} of a blob is expected, one {dtype.value}", start)
    return value.immediateValue.tensor


def _fill_tensor(words: Words, kind: Any, proto: Any) -> None:
    dtype = dtype_of(kind)
    scalars: list[Word] = []
    _gather(words, [_size(each) for each in kind.dimensions], scalars)
    if dtype is DType.STRING:
        proto.strings.values.extend([_string(words, each) for each in scalars])
    elif dtype is DType.BOOL:
        proto.bools.values.extend([_boolean(words, each) for each in scalars])
    else:
        proto.bytes.values = _numbers(words, scalars, dtype)


def _size(dimension: Any) -> int | None:
    return int(dimension.constant.size) if dimension.WhichOneof("dimension") == "constant" else None


def _gather(words: Words, sizes: list[int | None], scalars: list[Word]) -> None:
    """Collect the scalars of nested brackets, which must have the tensor's shape."""
    if not sizes:
        scalars.append(words.take())
        return
    start, count = words.expect("["), 0
    for _ in words.separated("]"):
        _gather(words, sizes[1:], scalars)
        count += 1
    if sizes[0] not in (None, count):
        words.fail(f"{count} elements in brackets; the type says {sizes[0]}", start)


def _string(words: Words, word: Word) -> str:
    if word.kind != "string":
        words.fail("a string in quotes is expected", word)
    return string_of(words, word)


def _boolean(words: Words, word: Word) -> bool:
    if word.text not in ("true", "false"):
        words.fail("'true' or 'false' is expected", word)
    return word.text == "true"


def _numbers(words: Words, scalars: list[Word], dtype: DType) -> bytes:
    if dtype in _FLOATS:
        exact = np.array([_float(words, each) for each in scalars], np.float64)
        with np.errstate(over="ignore"):
            rounded = exact.astype(dtype.numpy)
        is_lost = np.isinf(rounded.astype(np.float64)) & ~np.isinf(exact)
        if is_lost.any():
            words.fail(f"the number does not fit into {dtype.value}", scalars[int(is_lost.argmax())])
        return rounded.tobytes()
    signed = dtype is DType.INT4 or dtype.numpy.kind == "i"
    lowest = -(2 ** (dtype.bits - 1)) if signed else 0
    largest = 2 ** (dtype.bits - 1) - 1 if signed else 2**dtype.bits - 1
    numbers = [_integer(words, each) for each in scalars]
    for number, word in zip(numbers, scalars, strict=True):
        if not lowest <= number <= largest:
            words.fail(f"the number does not fit into {dtype.value}, which has {lowest} to {largest}", word)
    return _packed(np.array(numbers, dtype.numpy), dtype)


def _float(words: Words, word: Word) -> float:
    if word.kind != "number" and word.text not in ("inf", "nan"):
        words.fail("a number is expected", word)
    try:
        number = float.fromhex(word.text) if "x" in word.text.lower() else float(word.text)
    except OverflowError:
        number = math.inf
    # Refuse a number that is too large for a float: Python converts it to infinity.
    if math.isinf(number) and "inf" not in word.text:
        words.fail("the number does not fit into a float", word)
    return number


def _integer(words: Words, word: Word) -> int:
    if word.kind != "number" or not word.text.lstrip("+-").isdigit() or len(word.text) > _LONGEST_NUMBER:
        words.fail("an integer is expected", word)
    return int(word.text)


def _packed(numbers: Array, dtype: DType) -> bytes:
    """Convert elements to bytes. Those of less than 8 bits are packed, lowest bits first."""
    if dtype.bits >= 8:
        return numbers.tobytes()
    bits = np.unpackbits(numbers.view(np.uint8)[:, None], axis=1, count=dtype.bits, bitorder="little")
    return np.packbits(bits, bitorder="little").tobytes()
