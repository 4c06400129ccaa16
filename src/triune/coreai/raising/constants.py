"""The values of constants as arrays. MLIR's bindings read common element types; this module reads the others."""

import functools
import io
import math
import re
from typing import Any

import numpy as np

from triune.core.errors import InvalidArgumentError
from triune.coreai.bytecode import read_bytecode
from triune.coreai.library import ir
from triune.coreai.raising.types import Element, element_of
from triune.graph.raising.types import Array

_NAME = re.compile(r"dense_resource<(?:\"((?:[^\"\\]|\\.)*)\"|([^>]*))>")
_HEX = re.compile(r"dense<\"0x([0-9A-Fa-f]*)\">")
# Element types whose constants MLIR's Python bindings return as arrays. For other types the bindings crash.
_BUFFERED = frozenset({"f32", "f16", "f64", "i1", "si8", "si16", "si32", "si64", "ui8", "ui16", "ui32", "ui64"})


class Constants:
    """Reads the constants of a module."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def array(self, attribute: Any) -> Array:
        """The value of a constant, in the type that carries it in a graph (see `types`), or a complex type of numpy.

        Raises:
            InvalidArgumentError: the number of bytes does not match the type.
            UnsupportedError: the element type is unknown.
        """
        kind = ir.RankedTensorType(attribute.type)
        shape = tuple(int(size) for size in kind.shape)
        word = str(kind.element_type)
        element = element_of(word)
        if not isinstance(attribute, ir.DenseElementsAttr):
            return _unpacked(self._resource(str(attribute)), element, shape)
        if word in _BUFFERED:
            # Do not copy: a splat stores one value, but may declare any number of elements.
            values = np.asarray(attribute)
            # Repeat the value of a splat (one value for all elements): for bool, the bindings return only eight
            # elements.
            return np.broadcast_to(values.flat[0], shape) if attribute.is_splat else values.reshape(shape)
        return _written(attribute, element, shape)

    def _resource(self, text: str) -> memoryview:
        found = _NAME.match(text)
        name = "" if found is None else found[1] if found[1] is not None else found[2]
        if name not in self._resources:
            raise InvalidArgumentError(f"the constant '{name}' has no value in the file")
        return self._resources[name]

    @functools.cached_property
    def _resources(self) -> dict[str, memoryview]:
        file = io.BytesIO()
        self._module.operation.write_bytecode(file)
        return read_bytecode(file.getbuffer()).resources()


def _unpacked(data: memoryview, element: Element, shape: tuple[int, ...]) -> Array:
    """Unpack elements of less than 8 bits, lowest bits first. Further bytes are ignored, as in Apple's interpreter."""
    count = math.prod(shape)
    least = (count * element.bits + 7) // 8
    if (len(data) < least) if element.bits < 8 else (len(data) != least):
        raise InvalidArgumentError(f"a constant of shape {list(shape)} has {len(data)} bytes instead of {least}")
    if element.bits >= 8:
        return element.carry(np.frombuffer(data, element.storage)).reshape(shape)
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=count * element.bits, bitorder="little")
    values = np.packbits(bits.reshape(count, element.bits), axis=1, bitorder="little").reshape(count)
    return element.carry(values.view(element.storage)).reshape(shape)


def _written(attribute: Any, element: Element, shape: tuple[int, ...]) -> Array:
    """Read a constant from MLIR's text: bytes in hexadecimal, or numbers if they are few."""
    text = str(attribute)
    found = _HEX.match(text)
    if found is not None:
        return element.carry(np.frombuffer(bytes.fromhex(found[1]), element.storage)).reshape(shape)
    body = text[text.index("<") + 1 : text.rindex("> : ")]
    words = re.findall(r"[^\s,\[\]()]+", body)
    values = np.array([_number(word, element) for word in words])
    values = values.astype(element.carried.numpy)
    return np.broadcast_to(values.reshape(()), shape) if values.size == 1 else values.reshape(shape)


def _number(word: str, element: Element) -> float:
    if word in ("true", "false"):
        return float(word == "true")
    if word.startswith("0x"):
        # MLIR writes NaN and infinities as their bits.
        bits = np.array(int(word, 16), f"u{element.storage.itemsize}")
        return float(bits.view(element.storage).astype(np.float32))
    return float(word)
