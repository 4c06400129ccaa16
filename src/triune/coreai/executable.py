"""A function of an asset, run by Apple's library: in its interpreter, or on macOS 27 in the system's runtime.

Apple's library crashes on some errors, so that this should run in a child process (`hosting`).
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from triune.core.datatypes import Array, DataType
from triune.core.errors import InternalError, InvalidArgumentError, NotFoundError, UnsupportedError
from triune.core.tensors import Signature, TensorSpec
from triune.core.units import Unit
from triune.coreai.images import Image
from triune.coreai.installed import require_library
from triune.coreai.system import has_system_runtime
from triune.graph.state_names import new_state
from triune.hosting import Limits

_KINDS: Mapping[Unit, str] = {Unit.ANE: "neural_engine", Unit.GPU: "gpu"}
"""Apple's names of the compute units that the runtime can be asked to prefer."""

_OWN = "USE_LOCAL_COREAI"
"""The environment variable that makes the library use its own interpreter even if the system has Core AI."""


class AppleExecutable:
    """An `Executable` that runs in `coreai-core`. States are inputs, and outputs under the names of `new_state`.

    Images are arrays of bytes here. The library gets Pillow images, which it accepts only on macOS. That part was
    written from the library's source, and has never run on macOS.

    Attributes:
        signature: the signature of the function, in which -1 is a free dimension.
        unit: the requested compute unit.
        report: empty, since Core AI does not report where a function ran.
        precision: the precision in which the function computes, as in `description.Function`.
    """

    is_steady = False
    report = ""

    def __init__(self, path: Path, function: str, unit: Unit | None, precision: str) -> None:
        """Load a function.

        Args:
            path: the .aimodel.
            function: the function's name.
            unit: the compute unit that the system's runtime should prefer; None for the library's own interpreter.
            precision: the precision of the function, from `describe`; the library does not report it.

        Raises:
            InvalidArgumentError: the asset is broken.
            NotFoundError: the asset has no such function.
            UnsupportedError: the library is not installed, the system has no Core AI, or the function has images, which
                the library does not accept on this system.
        """
        if unit is None:
            os.environ[_OWN] = "1"
        _require(unit)
        from coreai.authoring import AIModelAsset
        from coreai.runtime import NDArray

        self._array: Any = NDArray
        self._loop = asyncio.new_event_loop()
        self._open = contextlib.AsyncExitStack()
        asset: Any = AIModelAsset
        try:
            entered = self._open.enter_async_context(asset.load(path).executable(_options(unit)))
            model: Any = self._loop.run_until_complete(entered)
        # Exceptions of Swift and MLIR have only `Exception` as common base class.
        except Exception as error:
            raise InvalidArgumentError(f"Core AI does not load '{path.name}': {error}") from error
        try:
            self._function: Any = model.load_function(function)
        except KeyError:
            known = ", ".join(f"'{name}'" for name in model.function_names)
            raise NotFoundError(f"'{path.name}' has no function '{function}'; it has {known}") from None
        about: Any = self._function.desc
        self._states = list(about.state_names)
        self._given_images = _images(about.input_names, about.input_descriptor)
        self._taken_images = _images(about.output_names, about.output_descriptor)
        _require_images(path, [*self._given_images, *self._taken_images])
        states = [_spec(name, about.state_descriptor(name)) for name in self._states]
        outputs = [_spec(name, about.output_descriptor(name)) for name in about.output_names]
        self.signature = Signature(
            (*(_spec(name, about.input_descriptor(name)) for name in about.input_names), *states),
            (*outputs, *(TensorSpec(new_state(each.name), each.datatype, each.shape) for each in states)),
        )
        self.unit = unit or Unit.CPU
        self.precision = precision

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Compute the named outputs; `core.runtime.Executable` describes the arguments."""
        # Pass only the inputs that the compiled function has: Apple's compiler removes inputs that no operation reads.
        read = {spec.name for spec in self.signature.inputs}
        given = {name: self._given(name, array) for name, array in inputs.items() if name in read}
        states = {name: given.pop(name) for name in self._states}
        try:
            results: Any = self._loop.run_until_complete(self._function(given, states))
        # The library raises RuntimeError, whatever the cause.
        except RuntimeError as error:
            raise InvalidArgumentError(f"Core AI refuses the inputs: {error}") from error
        found = dict(results) | {new_state(name): each for name, each in states.items()}
        missing = [name for name in outputs if name not in found]
        if missing:
            raise InternalError(f"Core AI gave no output '{missing[0]}'")
        return {name: self._taken(name, found[name]) for name in outputs}

    def _given(self, name: str, array: Array) -> Any:
        return (
            self._given_images[name].picture(array) if name in self._given_images else self._array(_contiguous(array))
        )

    def _taken(self, name: str, value: Any) -> Array:
        if name not in self._taken_images:
            # Copy the outputs, which are views of the library's memory.
            return np.array(value.numpy())
        try:
            return self._taken_images[name].pixels(f"output '{name}'", value)
        except InvalidArgumentError as error:
            raise InternalError(f"Core AI gave another image than it tells of: {error}") from error

    def interrupt(self) -> None:
        """Do nothing: Apple's library cannot interrupt a run. The process in which it runs can be ended instead."""

    def close(self) -> None:
        """Free the model."""
        self._loop.run_until_complete(self._open.aclose())
        self._loop.close()


HOST_LIMITS: Final = Limits(run_seconds=600.0)
"""The limits of a host process: Apple's interpreter (1.0.0b3) never returns from some loops."""


def takes_images() -> bool:
    """Whether Apple's installed library accepts images on this system."""
    from coreai import runtime

    library: Any = runtime
    return bool(library.HAS_IMAGE_SUPPORT)


def _require(unit: Unit | None) -> None:
    require_library()
    if unit is not None and not has_system_runtime():
        raise UnsupportedError(f"unit '{unit.value}' needs Core AI of macOS 27 or later; this system has none")


def _options(unit: Unit | None) -> Any:
    if unit is None:
        return None
    from coreai import runtime

    library: Any = runtime
    if unit not in _KINDS:
        return library.SpecializationOptions.cpu_only()
    kind = getattr(library.ComputeUnitKind, _KINDS[unit])()
    return library.SpecializationOptions.from_preferred_compute_unit_kind(kind)


def _image_type(about: Any) -> Image | None:
    """The type of an image that a descriptor states; None for a tensor."""
    if not hasattr(about, "pixel_format_type"):
        return None
    return Image.of(str(about.pixel_format_type), about.height, about.width)


def _images(names: Sequence[str], descriptor: Callable[[str], Any]) -> dict[str, Image]:
    """The images among the named inputs or outputs, by name."""
    images = {name: _image_type(descriptor(name)) for name in names}
    return {name: image for name, image in images.items() if image is not None}


def _require_images(path: Path, names: Sequence[str]) -> None:
    if names and not takes_images():
        raise UnsupportedError(
            f"'{path.name}' has images ('{names[0]}'), and Apple's library takes none on this system; "
            "run what is raised: executor 'onnxruntime'"
        )


def _spec(name: str, about: Any) -> TensorSpec:
    image = _image_type(about)
    if image is not None:
        return TensorSpec(name, DataType.UINT8, image.shape)
    kinds = {
        "float32": DataType.FP32,
        "float16": DataType.FP16,
        "bfloat16": DataType.BF16,
        "bool": DataType.BOOL,
        **{f"int{bits}": DataType(f"INT{bits}") for bits in (8, 16, 32, 64)},
        **{f"uint{bits}": DataType(f"UINT{bits}") for bits in (8, 16, 32, 64)},
    }
    word = str(about.dtype)
    if word not in kinds:
        raise UnsupportedError(f"'{name}' is of {word}, which no request can carry")
    return TensorSpec(name, kinds[word], tuple(-1 if size is None else int(size) for size in about.shape))


def _contiguous(array: Array) -> Array:
    """Copy an array, if necessary, so that it is C-contiguous and aligned, which the library requires."""
    return np.array(array, order="C")
