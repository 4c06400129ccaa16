"""Types in MIL text.

type      = dtype | "tensor" "<" dtype "," "[" size,* "]" ">" | "list" "<" type "," size ">"
| "state" "<" type ">" | "dict" "<" type "," type ">" | "tuple" "<" type,* ">"
size      = number | "?"
"""

from types import MappingProxyType
from typing import Any

from triune.core.errors import UnsupportedError
from triune.coreml.mil import DType
from triune.coreml.mil_text.lexer import Words
from triune.coreml.protos import mil_pb2
from triune.coreml.read_values import DTYPES

_CODES = MappingProxyType({dtype.value: code for code, dtype in DTYPES.items()})
_COMPOUND = frozenset({"tensor", "list", "state", "dict", "tuple"})
_MOST_DIMENSIONS = 16
_LARGEST_SIZE = 2**31 - 1
_LONGEST_NUMBER = 20


def is_value_next(words: Words) -> bool:
    """Whether the next words are a value rather than a name: a value begins with its type."""
    first, second = words.peek().text, words.peek(1).text
    return second == "<" if first in _COMPOUND else second == "(" and words.peek().kind == "name"


def is_declaration_next(words: Words) -> bool:
    """Whether an operation begins with the types and names of its outputs.

    If not, it has no outputs, and begins with its operator and "(": `write_state(...)`.
    """
    return words.peek(1).text != "("


def read_type_text(words: Words) -> Any:
    """Parse a type to `MIL_pb2.ValueType`.

    Raises:
        InvalidArgumentError: no type follows, or a size is out of range.
        UnsupportedError: the kind of type or the element type is unknown.
    """
    proto = mil_pb2().ValueType()
    with words.nested():
        _fill(words, proto)
    return proto


def dtype_of(proto: Any) -> DType:
    """The element type of a `MIL_pb2.TensorType`."""
    return DTYPES[proto.dataType]


def _fill(words: Words, proto: Any) -> None:
    word = words.expect_kind("name", "a type")
    if word.text not in _COMPOUND:
        proto.tensorType.dataType = _code(words, word)
        # Set the rank 0 of a scalar explicitly: protobuf would otherwise treat the rank as unset.
        proto.tensorType.rank = 0
        return
    words.expect("<")
    match word.text:
        case "tensor":
            _fill_tensor(words, proto.tensorType)
        case "list":
            proto.listType.type.CopyFrom(read_type_text(words))
            words.expect(",")
            _fill_size(words, proto.listType.length)
        case "state":
            proto.stateType.wrappedType.CopyFrom(read_type_text(words))
        case "dict":
            proto.dictionaryType.keyType.CopyFrom(read_type_text(words))
            words.expect(",")
            proto.dictionaryType.valueType.CopyFrom(read_type_text(words))
        case _:
            # Mark the field as set, so that a tuple without elements is a tuple, too.
            proto.tupleType.SetInParent()
            for _ in words.separated(">"):
                proto.tupleType.types.append(read_type_text(words))
            return
    words.expect(">")


def _fill_tensor(words: Words, tensor: Any) -> None:
    tensor.dataType = _code(words, words.expect_kind("name", "an element type"))
    words.expect(",")
    start = words.expect("[")
    for _ in words.separated("]"):
        if len(tensor.dimensions) == _MOST_DIMENSIONS:
            words.fail(f"a tensor of more than {_MOST_DIMENSIONS} dimensions", start)
        _fill_size(words, tensor.dimensions.add())
    tensor.rank = len(tensor.dimensions)


def _fill_size(words: Words, dimension: Any) -> None:
    if words.accept("?"):
        dimension.unknown.variadic = False
        return
    dimension.constant.size = unsigned_integer(words, _LARGEST_SIZE, "a size")


def unsigned_integer(words: Words, largest: int, what: str) -> int:
    """Parse an integer from 0 to `largest`. `what` is its name in errors."""
    word = words.expect_kind("number", what)
    if not word.text.isdigit() or len(word.text) > _LONGEST_NUMBER or int(word.text) > largest:
        words.fail(f"{what} is expected, from 0 to {largest}", word)
    return int(word.text)


def _code(words: Words, word: Any) -> int:
    if word.text not in _CODES:
        words.fail(f"the type '{word.text}' is not known; there are {', '.join(_CODES)}", word, UnsupportedError)
    return _CODES[word.text]
