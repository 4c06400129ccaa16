"""Core ML models that predict: through Core ML on Apple's systems, elsewhere through Triune's executors."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np

from triune.core.errors import InvalidArgumentError, NotFoundError, UnavailableError, UnsupportedError
from triune.core.executor import Executor
from triune.core.model import Model as LoadedModel
from triune.core.model import needs_state
from triune.core.state import State
from triune.core.tensors import Signature
from triune.coreml.default_shapes import check_stacks
from triune.coreml.description import ArrayFeature, Description, Feature, FunctionDescription, StateFeature
from triune.coreml.feature_values import classes_of, default_of, describe, from_program, to_array, to_program
from triune.coreml.mil import Array, Function, StateType, TensorType
from triune.coreml.package import Package, read_package, read_specification
from triune.coreml.signature import precision_of, signature_of
from triune.coreml.source import as_program_takes, is_scalar, read_source

ExecutorName: TypeAlias = Literal["coreml", "onnxruntime", "reference"]
_EXECUTORS: Final = get_args(ExecutorName)


def load(path: Path | str, *, function: str | None = None, executor: ExecutorName | None = None) -> "Model":
    """Load an `.mlpackage`, or the `.mlmodelc` that was made of one.

    Args:
        path: the package.
        function: the name of a function; the default function if None.
        executor: "coreml" (Apple's systems only), "onnxruntime" or "reference" (numpy: slow, simple). If None,
                    Core ML on Apple's systems, else ONNX Runtime.

    Raises:
        NotFoundError: there is no such package or function.
        InvalidArgumentError: the package is malformed.
        UnsupportedError: Triune or the executor does not support the model, or the executor is not available here.
    """
    return Model(read_package(path), function=function, executor=executor)


class Model(LoadedModel):
    """One function of a Core ML model. Calls may run at the same time, except those on the same state.

    Attributes:
        package: the package.
        executor: the name of the executor.
    """

    def __init__(
        self, package: Package, *, function: str | None = None, executor: ExecutorName | Executor | None = None
    ) -> None:
        """Prepare to run a function of a package.

        Args:
            package: from `read_package` or `read_specification`.
            function: as for `load`.
            executor: as for `load`, or an executor of that function.

        Raises:
            As `load`.
        """
        self.package: Final = package
        executor = executor or ("coreml" if sys.platform == "darwin" else "onnxruntime")
        self.executor: Final[str] = executor if isinstance(executor, str) else type(executor).__name__
        function = function or package.description.default_function
        self._program: Final[Function] = package.function(function)
        if function not in package.description.functions:
            raise NotFoundError(f"'{package.name}' does not describe its function '{function}'")
        described = package.description.functions[function]
        name = package.name if package.path is None else package.path.name
        super().__init__(name, function, [feature.name for feature in described.outputs])
        check_stacks(self._program, described, package.name)
        self._types: Final = {value.name: _tensor_type(value.type, value.name) for value in self._program.inputs}
        self._classes: Final = classes_of(self._program)
        if isinstance(executor, str):
            executor = _make_executor(executor, package, self.function)
        self._executor: Executor | None = executor

    @classmethod
    def from_specification(
        cls,
        specification: Any,
        weights: Mapping[str, bytes] | Path | str | None = None,
        *,
        function: str | None = None,
        executor: ExecutorName | None = None,
    ) -> "Model":
        """Prepare to run a specification in memory: see `read_specification` and `load`."""
        return cls(read_specification(specification, weights), function=function, executor=executor)

    @property
    def description(self) -> Description:
        """The whole model's interface."""
        return self.package.description

    @property
    def interface(self) -> FunctionDescription:
        """The interface of this function."""
        return self.package.description.functions[self.function]

    @property
    def signature(self) -> Signature:
        """The inputs and outputs of this function as tensors, without its states. An image is a tensor UINT8 (height,
        width, 3).

        Raises:
            UnsupportedError: one of them is not a tensor.
        """
        return signature_of(self.package, self.function)

    @property
    def source_names(self) -> Mapping[str, str]:
        """Maps the names of inputs and outputs to their names in the model that Triune converted, if they differ: Core
        ML does not allow names such as "encoder/x:0". Inputs may be given by either name.
        """
        source = read_source(self.package)
        return {own: tensor.name for own, tensor in {**source.inputs, **source.outputs}.items() if own != tensor.name}

    def make_state(self) -> State:
        """Make buffers of zeros for the states of the function; an empty state if it has none."""
        states = self._states()
        arrays = {name: np.zeros(kind.shape, self._types[name].dtype.numpy) for name, kind in states.items()}
        return State(arrays, lambda name, value: to_array(f"state {name}", states[name], value))

    def _compute(self, inputs: Mapping[str, Any], outputs: Sequence[str], state: State | None) -> dict[str, Any]:
        """Run the function. `feature_values` converts inputs (`to_program`) and outputs (`from_program`)."""
        arrays = self._check(inputs)
        if self._executor is None:
            raise UnavailableError(f"the model '{self.name}' is closed; load it again")
        run = self._executor.run
        if state is None:
            if self.interface.states:
                raise needs_state([feature.name for feature in self.interface.states])
            found, _ = run(arrays, {})
        else:
            with state.lock:
                state.check({name: kind.shape for name, kind in self._states().items()})
                found, state.arrays = run(arrays, state.arrays)
        return {
            feature.name: from_program(feature, found[feature.name], self._classes)
            for feature in self.interface.outputs
        }

    def _free(self) -> None:
        self._executor = None

    def _location(self) -> str:
        return f"function '{self.function}' in {self.executor} ({precision_of(self.package, self.function)})"

    def _interface(self) -> str:
        inputs, outputs = (
            ", ".join(f"{feature.name}: {describe(feature)}" for feature in features)
            for features in (self.interface.inputs, self.interface.outputs)
        )
        return f"{inputs} -> {outputs}"

    def _by_own_names(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Replace names of the source model by names of the program."""
        own = {tensor.name: name for name, tensor in read_source(self.package).inputs.items()}
        found: dict[str, Any] = {}
        for name, value in inputs.items():
            # A name that occurs in both the program and the source model is taken as the program's.
            chosen = name if name in {feature.name for feature in self.interface.inputs} else own.get(name, name)
            if chosen in inputs and chosen != name:
                raise InvalidArgumentError(f"input '{chosen}' is given twice, once as '{name}', its name in the source")
            found[chosen] = value
        return found

    def _check(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        known = {feature.name: feature for feature in self.interface.inputs}
        if inputs.keys() - known.keys():
            inputs = self._by_own_names(inputs)
        unknown = sorted(inputs.keys() - known.keys())
        if unknown:
            raise InvalidArgumentError(
                f"'{self.package.name}', function '{self.function}' has no input '{unknown[0]}'; it has {sorted(known)}"
            )
        if any(is_scalar(value) for value in inputs.values()):
            inputs = as_program_takes(inputs, read_source(self.package))
        return {
            name: to_program(feature, self._types[name], inputs[name])
            if inputs.get(name) is not None
            else default_of(feature, self._types[name])
            for name, feature in known.items()
        }

    def _states(self) -> dict[str, ArrayFeature]:
        return {feature.name: _buffer_of(feature) for feature in self.interface.states}


def _make_executor(name: str, package: Package, function: str) -> Executor:
    # Import an executor only when it is chosen, since each needs a large library.
    match name:
        case "reference":
            from triune.coreml.interpreter import Interpreter

            return Interpreter(package, function)
        case "onnxruntime":
            from triune.coreml.onnx_executor import OnnxExecutor

            return OnnxExecutor(package, function)
        case "coreml":
            from triune.coreml.apple import AppleExecutor

            return AppleExecutor(package, function)
        case _:
            raise UnsupportedError(f"there is no executor '{name}'; there are {', '.join(_EXECUTORS)}")


def _tensor_type(kind: Any, name: str) -> TensorType:
    kind = kind.wrapped if isinstance(kind, StateType) else kind
    if not isinstance(kind, TensorType):
        raise UnsupportedError(f"input '{name}' is neither a tensor nor a state")
    return kind


def _buffer_of(feature: Feature) -> ArrayFeature:
    if not isinstance(feature.type, StateFeature):
        raise UnsupportedError(f"state '{feature.name}' is described as {type(feature.type).__name__}")
    return feature.type.array
