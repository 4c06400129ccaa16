"""Programs in MIL text.

    program     = "program" "(" version ")" attributes? "{" function* "}"
    function    = "func" name "<" opset ">" "(" (type name),* ")" attributes? block-body ";"
    block-body  = "{" operation* "}" "->" "(" name,* ")"
    operation   = ((type name),* "=")? name "(" (name "=" argument),* ")" attributes? block* ";"
    argument    = name | value | "(" (name | value),* ")"
    attributes  = "[" (name "=" value),* "]"
    block       = ","? ("(" (type name),* ")")? block-body

The result is a protobuf as in a package. `read_program` checks its names afterwards.
"""

import re
from types import MappingProxyType
from typing import Any

from triune.core.errors import UnsupportedError
from triune.coreml.mil_text.lexer import Words
from triune.coreml.mil_text.types import is_declaration_next, is_value_next, read_type_text
from triune.coreml.mil_text.values import read_value_text
from triune.coreml.protos import mil_pb2

_VERSIONS = re.compile(r"1\.[0-9]{1,2}")
# The version that is written to the protobuf, whatever the version of the text is. The first programs in text had this
# version.
_PROTO_VERSION = 1
_OPSETS = MappingProxyType(
    {
        "ios13": "CoreML3",
        "ios14": "CoreML4",
        "ios15": "CoreML5",
        "ios16": "CoreML6",
        "ios17": "CoreML7",
        "ios18": "CoreML8",
        "ios19": "CoreML9",
        # Apple's systems have no versions between 18 and 26.
        "ios26": "CoreML9",
    }
)


def read_text(text: str, file: str) -> Any:
    """Parse a program.

    Args:
        text: the text of the program.
        file: the name of the text in error messages.

    Returns:
        `MIL_pb2.Program`.

    Raises:
        InvalidArgumentError: the text is malformed; the message names the file, the line and the column.
        UnsupportedError: a version, an operator set or a type is unknown.
    """
    words = Words(text, file)
    program = mil_pb2().Program(version=_PROTO_VERSION)
    words.expect("program")
    words.expect("(")
    version = words.expect_kind("number", "the version of the language")
    if not _VERSIONS.fullmatch(version.text):
        words.fail(f"version {version.text} of the language is not known; 1.0 to 1.99 is", version, UnsupportedError)
    words.expect(")")
    _attributes(words, program.attributes)
    words.expect("{")
    while not words.accept("}"):
        _function(words, program)
    words.expect_kind("end", "the end of the text")
    return program


def _function(words: Words, program: Any) -> None:
    words.expect("func")
    name = words.expect_kind("name", "the name of a function")
    if name.text in program.functions:
        words.fail(f"there are two functions '{name.text}'", name)
    words.expect("<")
    opset = words.expect_kind("name", "an operator set")
    if opset.text not in _OPSETS:
        known = ", ".join(_OPSETS)
        words.fail(f"the operator set '{opset.text}' is not known; there are {known}", opset, UnsupportedError)
    words.expect(">")
    # Protobuf creates the map's entry on access.
    function = program.functions[name.text]
    function.opset = _OPSETS[opset.text]
    _parameters(words, function.inputs)
    _attributes(words, function.attributes)
    _block_body(words, function.block_specializations[function.opset])
    words.expect(";")


def _parameters(words: Words, inputs: Any) -> None:
    words.expect("(")
    for _ in words.separated(")"):
        _declaration(words, inputs)


def _declaration(words: Words, values: Any) -> None:
    kind = read_type_text(words)
    name = words.expect_kind("name", "the name of a value")
    values.add(name=name.text, type=kind)


def _block_body(words: Words, block: Any) -> None:
    words.expect("{")
    with words.nested():
        while not words.accept("}"):
            _operation(words, block.operations.add())
    words.expect("->")
    words.expect("(")
    for _ in words.separated(")"):
        block.outputs.append(words.expect_kind("name", "the name of a value").text)


def _operation(words: Words, operation: Any) -> None:
    # Some operations have no outputs, such as `write_state(...)`.
    if is_declaration_next(words):
        _declaration(words, operation.outputs)
        while words.accept(","):
            _declaration(words, operation.outputs)
        words.expect("=")
    operation.type = words.expect_kind("name", "an operation").text
    words.expect("(")
    for _ in words.separated(")"):
        parameter = words.expect_kind("name", "the name of a parameter")
        if parameter.text in operation.inputs:
            words.fail(f"the parameter '{parameter.text}' is given twice", parameter)
        words.expect("=")
        _argument(words, operation.inputs[parameter.text])
    _attributes(words, operation.attributes)
    while not words.accept(";"):
        words.accept(",")
        block = operation.blocks.add()
        if words.is_next("("):
            _parameters(words, block.inputs)
        _block_body(words, block)


def _argument(words: Words, argument: Any) -> None:
    if not words.accept("("):
        _binding(words, argument.arguments.add())
        return
    # Mark the argument as present, since `()` adds nothing to it.
    argument.SetInParent()
    for _ in words.separated(")"):
        _binding(words, argument.arguments.add())


def _binding(words: Words, binding: Any) -> None:
    if is_value_next(words):
        binding.value.CopyFrom(read_value_text(words))
    else:
        binding.name = words.expect_kind("name", "the name of a value, or a value with its type").text


def _attributes(words: Words, attributes: Any) -> None:
    if not words.accept("["):
        return
    for _ in words.separated("]"):
        name = words.expect_kind("name", "the name of an attribute")
        if name.text in attributes:
            words.fail(f"the attribute '{name.text}' is given twice", name)
        words.expect("=")
        attributes[name.text].CopyFrom(read_value_text(words))
