"""Write programs as MIL text in the form of Core ML's compiler (`model.mil`); the grammar is in `program`."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from triune.core.errors import UnsupportedError
from triune.coreml.mil import Array, DType
from triune.coreml.read_values import DTYPES, read_value
from triune.coreml.weights import NoWeights

_NEWEST_OLD_OPSET = 7
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0"})


def write_text(proto: Any) -> str:
    """Write a `MIL_pb2.Program` as text, of version 1.0 up to iOS 17 and 1.3 from iOS 18 on.

    `read_text` returns the same program, bit for bit except for the payload of NaN.

    Raises:
        UnsupportedError: a value is of a kind that no available file of Apple's compiler has.
    """
    newest = max(int(function.opset.removeprefix("CoreML")) for function in proto.functions.values())
    return _Writer(is_old=newest <= _NEWEST_OLD_OPSET).program(proto)


class _Writer:
    """Writes one program. In version 1.0, the type of a scalar has empty brackets: `tensor<int32, []>`."""

    def __init__(self, *, is_old: bool) -> None:
        self._is_old = is_old

    def program(self, proto: Any) -> str:
        text = self._type_of("string", [])
        info = f'[buildInfo = dict<{text}, {text}>({{{{"compiler", "triune"}}}})]'
        functions = "".join(self._function(name, each) for name, each in sorted(proto.functions.items()))
        return f"program({'1.0' if self._is_old else '1.3'})\n{info}\n{{\n{functions}}}"

    def _function(self, name: str, proto: Any) -> str:
        opset = f"ios{int(proto.opset.removeprefix('CoreML')) + 10}"
        parameters = self._declarations(proto.inputs)
        return f"    func {name}<{opset}>({parameters}) {self._block(proto.block_specializations[proto.opset], 3)};\n"

    def _block(self, proto: Any, depth: int) -> str:
        operations = "".join(f"{'    ' * depth}{self._operation(each, depth)};\n" for each in proto.operations)
        return f"{{\n{operations}{'    ' * (depth - 1)}}} -> ({', '.join(proto.outputs)})"

    def _operation(self, proto: Any, depth: int) -> str:
        left = f"{self._declarations(proto.outputs)} = " if proto.outputs else ""
        arguments = ", ".join(f"{name} = {self._argument(each)}" for name, each in sorted(proto.inputs.items()))
        attributes = ", ".join(f"{name} = {self._value(each)}" for name, each in sorted(proto.attributes.items()))
        blocks = [
            (f"({self._declarations(each.inputs)}) " if each.inputs else "") + self._block(each, depth + 2)
            for each in proto.blocks
        ]
        bracket = f"[{attributes}]" if attributes else ""
        return f"{left}{proto.type}({arguments}){bracket}" + "".join(f" {each}" for each in blocks)

    def _declarations(self, values: Iterable[Any]) -> str:
        return ", ".join(f"{self._type(each.type)} {each.name}" for each in values)

    def _argument(self, proto: Any) -> str:
        bindings = [each.name or self._value(each.value) for each in proto.arguments]
        return bindings[0] if len(bindings) == 1 else f"({', '.join(bindings)})"

    def _type_of(self, dtype: str, sizes: Sequence[str]) -> str:
        return f"tensor<{dtype}, [{', '.join(sizes)}]>" if sizes or self._is_old else dtype

    def _type(self, proto: Any) -> str:
        match proto.WhichOneof("type"):
            case "tensorType" if any(each.unknown.variadic for each in proto.tensorType.dimensions):
                raise UnsupportedError("a tensor of any number of dimensions has no form in MIL text")
            case "tensorType":
                sizes = [_size(each) for each in proto.tensorType.dimensions]
                return self._type_of(DTYPES[proto.tensorType.dataType].value, sizes)
            case "listType":
                return f"list<{self._type(proto.listType.type)}, {_size(proto.listType.length)}>"
            case "stateType":
                return f"state<{self._type(proto.stateType.wrappedType)}>"
            case "dictionaryType":
                kind = proto.dictionaryType
                return f"dict<{self._type(kind.keyType)}, {self._type(kind.valueType)}>"
            case other:
                raise UnsupportedError(f"a value of kind '{other}' has no form in MIL text")

    def _value(self, proto: Any) -> str:
        return f"{self._type(proto.type)}({self._literal(proto)})"

    def _literal(self, proto: Any) -> str:
        if proto.WhichOneof("value") == "blobFileValue":
            text, offset = self._type_of("string", []), self._type_of("uint64", [])
            blob = proto.blobFileValue
            return f'BLOBFILE(path = {text}("{blob.fileName}"), offset = {offset}({blob.offset}))'
        if proto.type.WhichOneof("type") == "listType":
            return f"[{', '.join(self._literal(each) for each in proto.immediateValue.list.values)}]"
        constant = read_value(proto, NoWeights(), "a value")
        return _nested(np.asarray(constant.value), constant.dtype)


def _size(dimension: Any) -> str:
    return str(dimension.constant.size) if dimension.WhichOneof("dimension") == "constant" else "?"


def _nested(array: Array, dtype: DType) -> str:
    return _scalar(array[()], dtype) if array.ndim == 0 else f"[{', '.join(_nested(each, dtype) for each in array)}]"


def _scalar(value: Any, dtype: DType) -> str:
    if dtype is DType.STRING:
        return f'"{str(value).translate(_ESCAPES)}"'
    if dtype is DType.BOOL:
        return "true" if value else "false"
    if dtype in (DType.FP16, DType.FP32, DType.FP64, DType.BF16):
        # Remove trailing zeros, as C does. C and Python both write infinities and NaN as words.
        return re.sub(r"\.?0*p", "p", float(value).hex())
    return str(int(value))
