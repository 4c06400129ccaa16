"""Core ML itself as an executor, through coremltools' MLModel. It exists only on Apple's systems."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from triune.core.errors import InternalError, InvalidArgumentError, UnsupportedError
from triune.coreml.description import ColorSpace, DictionaryFeature, Feature, ImageFeature, ScalarFeature
from triune.coreml.feature_values import classes_of
from triune.coreml.mil import Array
from triune.coreml.package import Package
from triune.coreml.pillow import to_pillow


class AppleExecutor:
    """One function of a package, run by Core ML. It is an `Executor`.

    Each call copies the states into Core ML, and back.
    """

    def __init__(
        self,
        package: Package,
        function: str | None = None,
        *,
        compute_units: str | None = None,
        compiled: Path | None = None,
    ) -> None:
        """Let Core ML compile and load the package.

        Args:
            package: a package that was read from disk.
            function: the name of the function; None takes the default one.
            compute_units: the name of one of coremltools' `ComputeUnit`s, such as "CPU_AND_NE"; None leaves the choice
                to Core ML.
            compiled: the `.mlmodelc` that Core ML made of the package, which is loaded without compiling again; the
                package itself if it is one.

        Raises:
            UnsupportedError: this is not a system of Apple's, coremltools is missing, or the package is not on disk.
            InvalidArgumentError: Core ML refuses the package.
        """
        if package.path is None:
            raise UnsupportedError("Core ML loads packages from disk only; save the specification as an .mlpackage")
        try:
            import coremltools
        except ModuleNotFoundError as error:
            raise UnsupportedError("Core ML needs coremltools: pip install 'triune[coreml]'") from error
        name = function or package.description.default_function
        self._description = package.description.functions[name]
        self._classes = classes_of(package.function(name))
        # Core ML accepts a function's name only if the model has several functions.
        named = {"function_name": name} if len(package.description.functions) > 1 else {}
        library: Any = coremltools
        if compiled is None and package.path.suffix == ".mlmodelc":
            compiled = package.path
        chosen = {} if compute_units is None else {"compute_units": library.ComputeUnit[compute_units]}
        try:
            if compiled is not None:
                self._model: Any = library.models.CompiledMLModel(str(compiled), **named, **chosen)
                return
            self._model = library.models.MLModel(str(package.path), **named, **chosen)
        except (RuntimeError, ValueError) as error:
            raise InvalidArgumentError(f"Core ML refuses '{package.path}': {error}") from error
        if self._model.__proxy__ is None:
            raise UnsupportedError("Core ML is part of Apple's systems; use the executor 'onnxruntime' elsewhere")

    def run(
        self, inputs: Mapping[str, Array], states: Mapping[str, Array]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Run the function once; `Executor.run` describes the arguments."""
        given = {feature.name: _to_apple(feature, inputs[feature.name]) for feature in self._description.inputs}
        try:
            if states:
                state = self._model.make_state()
                for name, array in states.items():
                    state.write_state(name, array)
                outputs = self._model.predict(given, state=state)
                after = {name: np.asarray(state.read_state(name), array.dtype) for name, array in states.items()}
            else:
                outputs, after = self._model.predict(given), {}
        except RuntimeError as error:
            raise InternalError(f"Core ML failed: {error}") from error
        return {each.name: self._from_apple(each, outputs[each.name]) for each in self._description.outputs}, after

    def _from_apple(self, feature: Feature, value: Any) -> Array:
        match feature.type:
            case ScalarFeature():
                return np.array(value, object if isinstance(value, str) else np.int64)
            case DictionaryFeature():
                return np.array([value[label] for label in self._classes])
            case ImageFeature(space):
                pixels: Array = np.asarray(value)
                pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels[:, :, :3]
                if space is ColorSpace.BGR:
                    pixels = pixels[:, :, ::-1]
                return pixels.transpose(2, 0, 1)[None]
            case _:
                return np.asarray(value)


def _to_apple(feature: Feature, array: Array) -> Any:
    """Convert images to Pillow images, which MLModel requires; return other arrays unchanged."""
    if not isinstance(feature.type, ImageFeature):
        return array
    pixels = array[0].transpose(1, 2, 0)
    match feature.type.color_space:
        case ColorSpace.GRAYSCALE_FLOAT16:
            return to_pillow(pixels[:, :, 0].astype(np.float32))
        case ColorSpace.GRAYSCALE:
            return to_pillow(pixels[:, :, 0].astype(np.uint8))
        case ColorSpace.RGB:
            return to_pillow(pixels.astype(np.uint8))
        case ColorSpace.BGR:
            return to_pillow(pixels[:, :, ::-1].astype(np.uint8))
