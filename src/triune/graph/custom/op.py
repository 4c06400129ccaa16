"""A custom operator: its name, its numpy function and its function body."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias, cast, runtime_checkable

import numpy as np
import onnx.parser
from numpy.typing import DTypeLike, NDArray
from onnx import FunctionProto, helper

from triune.core.errors import InvalidArgumentError

Compute: TypeAlias = Callable[..., Any]

_STANDARD: Final = frozenset(["", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training"])
"""ONNX's own domains, in which users may not define operators."""


@runtime_checkable
class _OnnxscriptFunction(Protocol):
    """The attributes of onnxscript's functions that are used here."""

    def to_function_proto(self) -> Any: ...


@dataclass(frozen=True, slots=True, eq=False)
class CustomOp:
    """A custom operator. The decorator `custom_op` makes one from a numpy function.

    Attributes:
        domain: its ONNX domain, such as "my.domain".
        name: its operator type, such as "Swish".
        compute: the numpy function that computes the operator; None if only `body` defines it. The operator's inputs
            are its positional parameters, and the attributes its keyword-only parameters. It returns an array, or a
            tuple of arrays.
        outputs: the element type of each output: a numpy dtype, or the name of the input that has the same type. If
            empty, every output has the type of the first input. It is not used if there is a `body`, which determines
            the types.
        body: the operator as a function of ONNX operators; None if only numpy defines it.
    """

    domain: str
    name: str
    compute: Compute | None
    outputs: tuple[str | np.dtype[Any], ...] = ()
    body: FunctionProto | None = None

    def __post_init__(self) -> None:
        if self.domain in _STANDARD or not self.name:
            raise InvalidArgumentError(
                f"'{self.domain}::{self.name}' is no name of a custom operator: give a domain of your own and an "
                "operator, as in 'my.domain::Swish'"
            )
        if self.compute is None and self.body is None:
            raise InvalidArgumentError(
                f"custom operator '{self}' has neither a numpy function nor a body; give one of them"
            )
        if self.compute is not None:
            inputs = [each.name for each in self.parameters()[0]]
            names = [each for each in self.outputs if isinstance(each, str)]
            if unknown := [each for each in names if each not in inputs]:
                raise InvalidArgumentError(
                    f"custom operator '{self}': output type '{unknown[0]}' is no input; its inputs are "
                    f"{', '.join(inputs)}: name one of them, or give a numpy dtype such as np.int64"
                )

    @classmethod
    def of_body(cls, body: Any) -> "CustomOp":
        """An operator that is defined by its body: a function in ONNX's text format, a FunctionProto, or an onnxscript
        function.

        Raises:
            InvalidArgumentError: `body` is not such a function.
        """
        function = body_of(None, body)
        return cls(function.domain, function.name, None, body=function)

    def __str__(self) -> str:
        return f"{self.domain}::{self.name}"

    def __call__(self, *inputs: Any, **attributes: Any) -> Any:
        """Call the numpy function as it is."""
        if self.compute is None:
            raise InvalidArgumentError(f"custom operator '{self}' has no numpy function")
        return self.compute(*inputs, **attributes)

    def parameters(self) -> tuple[Sequence[inspect.Parameter], Sequence[inspect.Parameter]]:
        """The parameters of the numpy function that are inputs, and those that are attributes.

        Raises:
            InvalidArgumentError: it has no numpy function, or the function takes any number of keywords.
        """
        if self.compute is None:
            raise InvalidArgumentError(f"custom operator '{self}' has no numpy function")
        inputs: list[inspect.Parameter] = []
        attributes: list[inspect.Parameter] = []
        for name, each in inspect.signature(self.compute).parameters.items():
            if each.kind is each.VAR_KEYWORD:
                raise InvalidArgumentError(
                    f"the numpy function of '{self}' takes any keyword ('**{name}'); write its attributes as "
                    "keyword-only parameters, after a '*'"
                )
            (attributes if each.kind is each.KEYWORD_ONLY else inputs).append(each)
        return inputs, attributes

    def run(self, inputs: Sequence[NDArray[Any] | None], attributes: Mapping[str, Any]) -> tuple[NDArray[Any], ...]:
        """Compute the operator in numpy.

        Args:
            inputs: its inputs in order; None for one that is left out. They are copied where the function writes to
            them: it gets arrays that cannot be written to.
            attributes: its attributes by name.

        Raises:
            Exception: whatever the numpy function raises.
        """
        result = self(*(each if each is None else _read_only(each) for each in inputs), **attributes)
        results: Sequence[Any] = cast(Sequence[Any], result) if isinstance(result, (tuple, list)) else (result,)
        return tuple(np.asarray(each) for each in results)


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True, slots=True)
class _Decorator:
    """Makes a CustomOp of the function that it decorates."""

    domain: str
    name: str
    outputs: tuple[str | np.dtype[Any], ...] = ()
    body: FunctionProto | None = field(default=None, compare=False)

    def __call__(self, compute: Compute) -> CustomOp:
        return CustomOp(self.domain, self.name, compute, self.outputs, self.body)


def custom_op(name: str, *, outputs: Sequence[str | DTypeLike] = (), body: Any = None) -> Callable[[Compute], CustomOp]:
    """Decorate a numpy function as the implementation of a custom operator.

    ```python
    @triune.custom_op("my.domain::Swish", body='''
        <domain: "my.domain", opset_import: ["" : 20]>
        Swish <beta: float = 1.0> (x) => (y) {
            b = Constant <value_float: float = @beta> ()
            scaled = Mul (x, b)
            gate = Sigmoid (scaled)
            y = Mul (x, gate)
        }''')
    def swish(x, *, beta=1.0):
        return x / (1 + np.exp(-beta * x))
    ```

    Args:
        name: the domain and the operator, with "::" between them.
        outputs: the element type of each output, a numpy dtype or the name of an input that has the same one. Needed
            only for an operator without a body that has an output of another type than its first input.
        body: the operator in ONNX operators: a function in ONNX's text, a FunctionProto, or a function of onnxscript.

    Raises:
        InvalidArgumentError: the name has no domain, an output has no type of ONNX, or the body is not a function of
            that name.
    """
    domain, separator, op_type = name.partition("::")
    if not separator:
        raise InvalidArgumentError(f"'{name}' has no domain; name a custom operator as in 'my.domain::{name}'")
    types = tuple(_output_type(name, each) for each in outputs)
    return _Decorator(domain, op_type, types, None if body is None else body_of(name, body))


def _output_type(name: str, given: Any) -> str | np.dtype[Any]:
    if isinstance(given, str):
        return given
    try:
        dtype = np.dtype(given)
        helper.np_dtype_to_tensor_dtype(dtype)
    except (TypeError, KeyError, ValueError) as error:
        raise InvalidArgumentError(
            f"custom operator '{name}': {given!r} is neither the name of an input nor a dtype that ONNX has"
        ) from error
    return dtype


def body_of(name: str | None, body: Any) -> FunctionProto:
    """The function body of an operator, checked.

    Args:
        name: the operator, as in "my.domain::Swish"; None for whatever the body defines.
        body: a function in ONNX's text, a FunctionProto, or a function of onnxscript.

    Raises:
        InvalidArgumentError: it cannot be parsed, is of another name, or imports no operators of ONNX.
    """
    what = "the body of a custom operator" if name is None else f"the body of custom operator '{name}'"
    if isinstance(body, _OnnxscriptFunction):
        body = body.to_function_proto()
    if isinstance(body, str):
        try:
            body = onnx.parser.parse_function(body)
        except onnx.parser.ParseError as error:
            raise InvalidArgumentError(
                f"{what} is no function in ONNX's text: {' '.join(str(error).split())}"
            ) from error
    if not isinstance(body, FunctionProto):
        raise InvalidArgumentError(
            f"{what} is {type(body).__name__}; give a function in ONNX's text, a FunctionProto, or a function of "
            "onnxscript"
        )
    own = FunctionProto.FromString(body.SerializeToString())
    if name is not None and f"{own.domain}::{own.name}" != name:
        raise InvalidArgumentError(f"{what} defines '{own.domain}::{own.name}'; both must be the same")
    if not any(each.domain in ("", "ai.onnx") for each in own.opset_import):
        raise InvalidArgumentError(f'{what} imports no operator set of ONNX; write opset_import: ["" : 20]')
    return own
