"""Core ML models on disk, made by coremltools."""

import functools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from support.mil_programs import mb, mil_types
from triune.coreml.quiet import quiet

with quiet():
    ct: Any = import_module("coremltools")


def save(
    folder: Path, program: Any, *, target: str = "iOS18", precision: str = "FLOAT32", name: str = "m", **options: Any
) -> Path:
    """Convert a `mb.program` and save it as a package."""
    path = folder / f"{name}.mlpackage"
    with quiet():
        ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=getattr(ct.target, target),
            compute_precision=getattr(ct.precision, precision),
            **options,
        ).save(str(path))
    return path


def program(*specs: Any, target: str = "iOS18") -> Callable[[Callable[..., Any]], Any]:
    """Make a `mb.program` with inputs of these specifications; see `tensor` and `state`."""
    return functools.partial(mb.program, input_specs=list(specs), opset_version=getattr(ct.target, target))()


def tensor(*shape: Any, dtype: str = "fp32") -> Any:
    """Make the specification of an input."""
    return mb.TensorSpec(shape=shape, dtype=getattr(mil_types, dtype))


def state(*shape: int, dtype: str = "fp16") -> Any:
    """Make the specification of a state."""
    return mb.StateTensorSpec(shape=shape, dtype=getattr(mil_types, dtype))


def save_affine(folder: Path, factor: float = 2.0, name: str = "m", **options: Any) -> Path:
    """Save a model that computes y = factor x + 1, of shape (2, 3)."""

    @program(tensor(2, 3))
    def made(x: Any) -> Any:
        return mb.add(x=mb.mul(x=x, y=factor), y=1.0, name="y")

    return save(folder, made, name=name, **options)


def save_accumulator(folder: Path) -> Path:
    """Save a model whose state of shape (1, 2) sums the inputs of all calls. The output y is the sum."""

    @program(tensor(1, 2, dtype="fp16"), state(1, 2))
    def made(x: Any, total: Any) -> Any:
        value = mb.add(x=x, y=mb.read_state(input=total))
        return mb.mul(x=mb.coreml_update_state(state=total, value=value), y=np.float16(1), name="y")

    return save(folder, made, precision="FLOAT16")


def save_cached_attention(folder: Path, slots: int = 8, width: int = 4) -> Path:
    """Save one step of an attention. Its keys, which are also its values, are a state of shape (1, slots, width).

    `x` (1, width) is the step's key and query; `slot` (1, slots, 1) is 1 at the slot to which the key is written;
    `mask` (1, 1, slots) is added to the scores.
    """

    @program(
        tensor(1, width, dtype="fp16"),
        tensor(1, slots, 1, dtype="fp16"),
        tensor(1, 1, slots, dtype="fp16"),
        state(1, slots, width),
    )
    def made(x: Any, slot: Any, mask: Any, keys: Any) -> Any:
        row = mb.expand_dims(x=x, axes=[1])
        kept = mb.mul(x=mb.read_state(input=keys), y=mb.sub(x=np.float16(1), y=slot))
        every = mb.coreml_update_state(state=keys, value=mb.add(x=kept, y=mb.mul(x=slot, y=row)))
        scores = mb.add(x=mb.matmul(x=row, y=every, transpose_y=True), y=mask)
        return mb.squeeze(x=mb.matmul(x=mb.softmax(x=scores, axis=-1), y=every), axes=[1], name="y")

    return save(folder, made, precision="FLOAT16", name="attention")


def save_classifier(folder: Path, labels: Sequence[Any] = ("ant", "bee", "cat")) -> Path:
    """Save a classifier: a softmax over three classes."""

    @program(tensor(1, 3))
    def made(x: Any) -> Any:
        return mb.softmax(x=x, axis=-1, name="probabilities")

    return save(folder, made, classifier_config=ct.ClassifierConfig(list(labels)))


def save_functions(folder: Path) -> Path:
    """Save a model with two functions of one input: "twice" (the default), and "thrice"."""
    with tempfile.TemporaryDirectory() as parts:
        packages = {name: save_affine(Path(parts), factor, name) for name, factor in (("twice", 2.0), ("thrice", 3.0))}
        return _join(folder / "functions.mlpackage", packages)


def save_two_kinds(folder: Path) -> Path:
    """Save a model with the functions "single" (the default), in fp32 of shape (2, 3), and "half", in fp16 of shape (1,
    4).
    """

    @program(tensor(1, 4, dtype="fp16"))
    def half(x: Any) -> Any:
        return mb.mul(x=x, y=np.float16(3), name="y")

    with tempfile.TemporaryDirectory() as parts:
        single = save_affine(Path(parts), name="single")
        packages = {"single": single, "half": save(Path(parts), half, precision="FLOAT16", name="half")}
        return _join(folder / "kinds.mlpackage", packages)


def _join(path: Path, packages: Mapping[str, Path]) -> Path:
    """Join packages into one, in which each is a function. The first is the default."""
    with quiet():
        descriptor = ct.utils.MultiFunctionDescriptor()
        for name, package in packages.items():
            descriptor.add_function(str(package), "main", name)
        descriptor.default_function_name = next(iter(packages))
        ct.utils.save_multifunction(descriptor, str(path))
    return path


def save_image_model(folder: Path, layout: str = "RGB", size: tuple[int, int] = (4, 5)) -> Path:
    """Save a model that maps an image of (height, width) to its negative, as an image."""
    channels = 3 if layout in ("RGB", "BGR") else 1
    shape = (1, channels, *size)

    @program(tensor(*shape))
    def made(x: Any) -> Any:
        return mb.sub(x=255.0, y=x, name="y")

    color = getattr(ct.colorlayout, layout)
    made.functions["main"].set_output_types([ct.ImageType(name="y", color_layout=color)])
    return save(folder, made, inputs=[ct.ImageType(name="x", shape=shape, color_layout=color)])


def save_flexible(folder: Path, dimension: Any) -> Path:
    """Save y = x + 1 of shape (n, 3), where n is a `ct.RangeDim`; or with the shapes of a `ct.EnumeratedShapes`."""
    from coremltools.converters.mil.mil import get_new_symbol

    @program(tensor(get_new_symbol(), 3))
    def made(x: Any) -> Any:
        return mb.add(x=x, y=1.0, name="y")

    shape = dimension if isinstance(dimension, ct.EnumeratedShapes) else (dimension, 3)
    return save(folder, made, inputs=[ct.TensorType(name="x", shape=shape)])
