"""The inputs, outputs and states of a function, derived from those of a graph."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import coremltools
from onnx import ModelProto, TensorProto, ValueInfoProto

from triune.core.errors import UnsupportedError
from triune.coreml.lowering.context import truth
from triune.coreml.lowering.mb import Var, get_new_symbol, mb, types
from triune.coreml.lowering.options import LowerOptions, Target
from triune.coreml.lowering.precision import in_fp32
from triune.graph.conversion.interface import empty_input, passed_type
from triune.graph.conversion.shapes import InputShape, Range, inputs_of, is_left_out, listed
from triune.graph.conversion.states import next_values

_RESERVED = frozenset(
    [
        *("any", "bool", "program", "func", "tensor", "list", "dict", "tuple", "true", "false", "string", "state"),
        *("bf16", "fp16", "fp32", "fp64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    ]
)
"""Reserved words of MIL, which coremltools' NameSanitizer changes too."""

_RUNTIME = "Core ML"

_MIL_TYPES: Mapping[int, str] = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.INT32: "int32",
    TensorProto.BOOL: "int32",
}


@dataclass(frozen=True, slots=True)
class Feature:
    """An input or output.

    Attributes:
        source: its name in the graph.
        name: its name in the package.
        elem_type: TensorProto.DataType in the narrowed graph.
        shape: an input's shape; a size that is not fixed is a symbol of coremltools. () for a scalar.
        given: the shape that the user gave for an input, by `--shape` for example; None if the user gave none.
        is_wide: whether an fp16 value is passed as fp32, since interfaces have fp16 only from iOS16 on.
        next: for a state, the name of the graph's output that is its next value; else empty.
    """

    source: str
    name: str
    elem_type: int
    shape: tuple[Any, ...] = ()
    given: InputShape | None = None
    is_wide: bool = False
    next: str = ""

    def placeholder(self) -> Any:
        """The input of MIL's function: a scalar is passed as a vector of one element, since Core ML has no scalar
        inputs. All states are of fp16, since Core ML has no others.
        """
        if self.next:
            return mb.state_tensor_placeholder(self.shape or (1,), types.fp16)
        kind = "fp32" if self.is_wide else _MIL_TYPES[self.elem_type]
        return mb.placeholder(shape=self.shape or (1,), dtype=types.string_to_builtin(kind))

    def to_graph_value(self, value: Var) -> Var:
        """Convert the input of MIL's function to the element type and shape that the graph's input has."""
        if self.next:
            value = mb.read_state(input=value)
            value = value if self.elem_type == TensorProto.FLOAT16 else mb.cast(x=value, dtype="fp32")
        if self.elem_type == TensorProto.BOOL:
            value = truth(value)
        if self.is_wide:
            value = mb.cast(x=value, dtype="fp16")
        if self.shape:
            return value
        with in_fp32():
            return mb.squeeze(x=value, axes=[0])

    def tensor_type(self) -> Any:
        """The input's description for coremltools, with the shapes that callers may pass."""
        library: Any = coremltools
        if self.given is None or all(isinstance(dim, int) for dim in self.shape):
            return library.TensorType(name=self.name, shape=self.shape or (1,))
        if self.given.is_enumerated:
            return library.TensorType(name=self.name, shape=library.EnumeratedShapes(shapes=list(self.given.choices)))
        dims = [
            library.RangeDim(lower_bound=dim.low, upper_bound=dim.high, default=dim.low)
            if isinstance(dim, Range)
            else dim
            for dim in self.given.choices[0]
        ]
        return library.TensorType(name=self.name, shape=library.Shape(dims))


@dataclass(frozen=True, slots=True)
class Interface:
    """All inputs, outputs and states of a function, each in the graph's order.

    Attributes:
        inputs: the inputs.
        outputs: the outputs.
        states: the inputs of the graph that are states.
        opset: the deployment target, as coremltools' constant.
    """

    inputs: Sequence[Feature]
    outputs: Sequence[Feature]
    states: Sequence[Feature]
    opset: Any


def interface_of(model: ModelProto, options: LowerOptions) -> Interface:
    """The interface of a function of a normalized and narrowed model. Empty inputs that no node reads are left out.

    Raises:
        InvalidArgumentError: a state names no input or output of the model, or their shapes differ.
        UnsupportedError: Core ML lacks an input's type or shape, a dimension has no limits, or several inputs have
            enumerated shapes before iOS18.
    """
    graph = model.graph
    nexts = next_values(graph, options.states)
    names = _UniqueNames([value.name for value in (*inputs_of(graph), *graph.output)])
    symbols: dict[str, Any] = {}
    missing: list[str] = []
    inputs: list[Feature] = []
    for value in inputs_of(graph):
        if is_left_out(value, graph):
            continue
        feature = _input(value, names.sanitized(value.name), options, symbols, missing)
        if feature is not None:
            inputs.append(feature)
    if missing:
        raise UnsupportedError(
            f"{'; '.join(missing)}. Core ML needs limits for every dimension: give --shape INPUT=1,1..512 for a range, "
            "--shape INPUT=1,128|1,512 for several shapes, or one fixed shape"
        )
    _require_one_enumerated(inputs, options.target)
    outputs = [
        Feature(value.name, names.sanitized(value.name), passed_type(value, "output", _MIL_TYPES, _RUNTIME))
        for value in graph.output
        if value.name not in nexts
    ]
    states = [feature for feature in inputs if feature.next]
    inputs = [feature for feature in inputs if not feature.next]
    library: Any = coremltools
    return Interface(inputs, outputs, states, getattr(library.target, options.target.label))


def _input(
    value: ValueInfoProto, name: str, options: LowerOptions, symbols: dict[str, Any], missing: list[str]
) -> Feature | None:
    elem_type = passed_type(value, "input", _MIL_TYPES, _RUNTIME)
    tensor = value.type.tensor_type
    given = options.shapes.get(value.name)
    if not tensor.HasField("shape"):
        missing.append(f"not even the rank of input '{value.name}' is known")
        return None
    dims: list[Any] = []
    for axis, dim in enumerate(tensor.shape.dim):
        if dim.HasField("dim_value"):
            if dim.dim_value == 0:
                raise empty_input(value.name, _RUNTIME)
            dims.append(dim.dim_value)
        elif given is None:
            missing.append(f"dimension {axis} ('{dim.dim_param or '?'}') of input '{value.name}' is free")
        else:
            key = dim.dim_param or f"{value.name}/{axis}"
            dims.append(symbols.setdefault(key, get_new_symbol()))
    if len(tensor.shape.dim) > 5:
        raise UnsupportedError(
            f"input '{value.name}' is of rank {len(tensor.shape.dim)}; Core ML's limit is rank 5: reshape it before"
        )
    following = options.states.get(value.name, "")
    if following and elem_type not in (TensorProto.FLOAT, TensorProto.FLOAT16):
        raise UnsupportedError(
            f"state '{value.name}' is {TensorProto.DataType.Name(elem_type)}; Core ML's states are FLOAT16: leave it "
            "an input and an output"
        )
    is_wide = elem_type == TensorProto.FLOAT16 and options.target is Target.IOS15
    return Feature(value.name, name, elem_type, tuple(dims), given, is_wide, following)


def _require_one_enumerated(inputs: Sequence[Feature], target: Target) -> None:
    """Check that at most one input has several shapes if the package is to run before iOS18, whose Core ML fails
    otherwise (coremltools' `convert` refuses it, too).
    """
    several = [each.source for each in inputs if each.given is not None and each.given.is_enumerated]
    if len(several) > 1 and target is not Target.IOS18:
        raise UnsupportedError(
            f"the inputs {listed(several)} have several shapes each, which needs iOS18, and the package is to run on "
            f"{target.label}: give ranges, INPUT=1,1..512, or one shape"
        )


class _UniqueNames:
    """Gives each input and output a unique name that Core ML accepts."""

    def __init__(self, names: Sequence[str]) -> None:
        # Names that Core ML accepts as they are stay, and are not given to other inputs or outputs.
        self._unchanged = {name for name in names if _sanitized(name) == name}
        self._taken: set[str] = set()

    def sanitized(self, name: str) -> str:
        """A name that Core ML accepts and that is not taken yet: `name` itself if Core ML accepts it."""
        base = _sanitized(name)
        result, count = base, 0
        while result in self._taken or (result in self._unchanged and result != name):
            count += 1
            result = f"{base}_{count}"
        self._taken.add(result)
        return result


def _sanitized(name: str) -> str:
    """Replace characters that Core ML does not accept by underscores, and avoid its reserved words."""
    base = re.sub(r"[^a-zA-Z0-9_]", "_", name)
    if not re.match(r"[a-zA-Z_]", base):
        base = f"_{base}"
    return f"{base}_" if base in _RESERVED else base
