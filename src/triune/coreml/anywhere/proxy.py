"""A loaded model with the interface that coremltools expects, which runs in `triune.coreml.model.Model`."""

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from triune.core.errors import InvalidArgumentError
from triune.coreml.anywhere.assets import ModelAssetProxy, asset_from_memory, asset_from_path, compile_model
from triune.coreml.anywhere.devices import all_devices
from triune.coreml.anywhere.failures import as_runtime_errors
from triune.coreml.anywhere.placement import ASKED
from triune.coreml.anywhere.plan import plan_of
from triune.coreml.anywhere.specification_version import LARGEST_VERSION, lowered
from triune.coreml.anywhere.structure import structure_of
from triune.coreml.description import ImageFeature
from triune.coreml.mil import Array
from triune.coreml.model import State
from triune.coreml.package import read_model, read_package
from triune.coreml.pillow import to_pillow
from triune.coreml.pipeline import load_model

# Core ML's own message begins with this text, and some programs check for it.
_PREDICTION = "Unable to compute the prediction using ML Program: "


class StateProxy:
    """The buffers of a stateful model."""

    def __init__(self, state: State) -> None:
        self.state = state

    def read_state(self, name: str) -> Array:
        """Return a copy of a buffer. Raises RuntimeError if there is no buffer of that name."""
        with as_runtime_errors():
            return self.state.read(name)

    def write_state(self, name: str, value: Any) -> None:
        """Replace a buffer. Raises RuntimeError if there is no buffer of that name, or it has another shape."""
        with as_runtime_errors():
            self.state.write(name, value)


class ModelProxy:
    """One function of a loaded model.

    Compute units and optimization hints are checked, but have no effect: everything runs on the CPU. `build_module`
    derives a class from this one, which sets the executor.
    """

    executor: Literal["onnxruntime", "reference"] = "onnxruntime"

    def __init__(
        self, path: str, units: str, function: str, hints: Mapping[str, str], asset: ModelAssetProxy | None
    ) -> None:
        """Load a model.

        Args:
            path: an `.mlpackage`, `.mlmodel` or `.mlmodelc`; ignored if there is an asset.
            units: the name of a coremltools compute unit.
            function: the name of a function; empty for the default one.
            hints: optimization hints by name.
            asset: a model that has been read already.

        Raises:
            RuntimeError: the model cannot be read, or Triune does not support it.
        """
        self._path = Path(path)
        self._asset = asset
        self._compiled: tempfile.TemporaryDirectory[str] | None = None
        self._compiled_path = ""
        self._predict_ns: int | None = None
        self.hints = dict(hints)
        with as_runtime_errors():
            if units not in ASKED:
                raise InvalidArgumentError(f"there are no compute units '{units}'; there are {', '.join(ASKED)}")
            start = time.perf_counter_ns()
            read = asset.package if asset is not None else read_model(self._path)
            self._model = load_model(read, function=function or None, executor=self.executor)
            self._load_ns = time.perf_counter_ns() - start
        self._images = {
            each.name: each.type for each in self._model.interface.outputs if isinstance(each.type, ImageFeature)
        }

    def predict(self, data: Mapping[str, Any], state: StateProxy | None = None) -> dict[str, Any]:
        """Compute all outputs: arrays, Pillow images, labels, or dictionaries of probabilities, by name.

        Raises:
            RuntimeError: an input is missing or wrong, or the computation fails.
        """
        start = time.perf_counter_ns()
        with as_runtime_errors(_PREDICTION):
            outputs = self._model.predict(data, None if state is None else state.state)
        self._predict_ns = time.perf_counter_ns() - start
        return {name: self._to_image(name, value) for name, value in outputs.items()}

    def batchPredict(self, requests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:  # noqa: N802  # its name
        """Compute the outputs of several requests, one after the other."""
        start = time.perf_counter_ns()
        results = [self.predict(data) for data in requests]
        self._predict_ns = time.perf_counter_ns() - start
        return results

    def newState(self) -> StateProxy:  # noqa: N802  # coremltools' name
        """Make buffers of zeros for the states."""
        with as_runtime_errors():
            return StateProxy(self._model.make_state())

    def get_compiled_model_path(self) -> str:
        """The path of the model's `.mlmodelc`, which is there as long as this object is."""
        if not self._compiled_path:
            with as_runtime_errors():
                self._compiled_path = self._compile()
        return self._compiled_path

    def get_load_duration_in_nano_seconds(self) -> int:
        """The time that reading and preparing the model took, in nanoseconds."""
        return self._load_ns

    def get_last_predict_duration_in_nano_seconds(self) -> int | None:
        """The time of the last `predict` or `batchPredict`, in nanoseconds; None before the first."""
        return self._predict_ns

    @staticmethod
    def auto_set_specification_version(specification: Any) -> Any:
        """Return the specification with the lowest version that supports it: as bytes if it is bytes, else as a
        message.
        """
        with as_runtime_errors():
            return lowered(specification)

    @staticmethod
    def maximum_supported_specification_version() -> int:
        """The newest specification version that can be loaded."""
        return LARGEST_VERSION

    @staticmethod
    def compileModel(path: str) -> str:  # noqa: N802  # coremltools' name
        """Write a model's `.mlmodelc` into a new temporary folder, which the caller must delete, and return its
        path.
        """
        with as_runtime_errors():
            return str(compile_model(Path(path)))

    @staticmethod
    def create_model_asset_from_path(path: str) -> Any:
        """The `MLModelAsset` of an `.mlmodelc`."""
        with as_runtime_errors():
            return asset_from_path(path)

    @staticmethod
    def create_model_asset_from_memory(specification: bytes, blobs: Mapping[str, bytes]) -> Any:
        """The `MLModelAsset` of a specification's bytes and its weight files."""
        with as_runtime_errors():
            return asset_from_memory(specification, blobs)

    @staticmethod
    def get_model_structure(path: str) -> Any:
        """The `MLModelStructure` of a model."""
        with as_runtime_errors():
            return structure_of(read_package(path).program)

    @staticmethod
    def get_compute_plan(path: str, units: str) -> Any:
        """The `MLComputePlan` of a model, as Triune predicts it: see `plan_of`."""
        with as_runtime_errors():
            return plan_of(read_package(path).program, units)

    @staticmethod
    def get_available_compute_devices() -> list[Any]:
        """The CPU, and the emulated GPU and Neural Engine."""
        return all_devices()

    @staticmethod
    def get_all_compute_devices() -> list[Any]:
        """The same devices as `get_available_compute_devices`: none is unavailable here."""
        return all_devices()

    def _compile(self) -> str:
        if self._asset is not None:
            path = self._asset.package.path
            if path is None:
                raise InvalidArgumentError("the model was loaded from memory: it has no compiled path")
            return str(path)
        if self._path.suffix == ".mlmodelc":
            return str(self._path)
        self._compiled = tempfile.TemporaryDirectory(prefix="triune-")
        return str(compile_model(self._path, Path(self._compiled.name)))

    def _to_image(self, name: str, value: Any) -> Any:
        if name not in self._images:
            return value
        with as_runtime_errors():
            return to_pillow(value)
