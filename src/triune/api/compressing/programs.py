"""Write compressed models as Apple's programs: Core ML packages and Core AI assets."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from onnx import ModelProto

from triune.api.comparing import Advice, Comparison
from triune.api.conversions import onnx_to_coreai, onnx_to_coreml
from triune.api.models import load
from triune.api.rounds import ConversionResult
from triune.compression.accuracy import Accuracy, OutputAccuracy
from triune.compression.options import Options, WeightForm
from triune.compression.samples import Samples
from triune.compression.save import save
from triune.core.datatypes import Array
from triune.core.errors import UnsupportedError
from triune.coreai import verify as coreai_verify
from triune.coreai.lowering import MAIN
from triune.coreai.lowering import LowerOptions as CoreAiOptions
from triune.coreai.model import Model as CoreAiModel
from triune.coreml import verify as coreml_verify
from triune.coreml.description import ArrayFeature
from triune.coreml.lowering import LowerOptions as CoreMlOptions
from triune.coreml.package import read_package
from triune.graph.conversion.options import Precision
from triune.graph.conversion.shapes import InputShape
from triune.graph.verify import Verdict

_MOST_SAMPLES: Final = 16
"""The most samples on which a program is compared with its source to find layers that overflow in fp16."""

_ADVICE: Final = Advice(
    larger="give some with --calibrate, so that what loses them computes in fp32",
    wrong="give some with --calibrate if such inputs occur",
    left_out="give samples that matter with --calibrate",
    slow="",
)


def convert_compressed(
    model: ModelProto,
    target: Path,
    options: Options,
    shapes: Mapping[str, InputShape],
    samples: Samples,
    tell: Callable[[str], None],
) -> list[str]:
    """Convert a compressed model to a program in fp16, whose weights stay compressed. Layers that are wrong in
    fp16 on the user's samples, or on generated inputs if there are none, compute in fp32.

    Integer weights keep their bits and blocks. Palettes and zeros become look-up tables and bitmasks, without further
    loss.

    Args:
        model: the model, which is changed.
        target: a .mlpackage or .aimodel.
        options: the form of the weights.
        shapes: the shapes of inputs with free dimensions.
        samples: the samples of the compression.
        tell: receives progress messages.

    Returns:
        notes on layers that differ from the requested form, and on fp16. Raises the errors of `converting.convert`.
    """
    comparison = Comparison(is_limited=True, samples=_telling(samples), advice=_ADVICE)
    is_core_ml = target.suffix == ".mlpackage"
    with tempfile.TemporaryDirectory(prefix="triune-compression-") as folder:
        path = Path(folder) / "model.onnx"
        save(model, path)
        tell("converting")
        if is_core_ml:
            core_ml = CoreMlOptions(precision=Precision.FP16, shapes=shapes)
            done = onnx_to_coreml({MAIN: path}, target, core_ml, tell, comparison)
        else:
            core_ai = CoreAiOptions(precision=Precision.FP16, shapes=shapes, packs_weights=True)
            done = onnx_to_coreai({MAIN: path}, target, core_ai, tell, comparison)
    notes = [*done.notes, *_notes_on_halves(done)]
    notes += [f"'{name}' is called '{other}' in the program" for name, other in done.renamed.items()]
    if is_core_ml and (options.has_zeros or options.weights is WeightForm.PALETTE):
        tell("packing weights")
        # coremltools is imported only if a package is packed.
        from triune.coreml.packing import pack_palettes, pack_zeros

        if options.weights is WeightForm.PALETTE:
            pack_palettes(target, options.group)
        elif options.weights is WeightForm.SPARSE:
            pack_zeros(target)
    return notes


def limits_of(source: Path) -> dict[str, InputShape]:
    """The shapes that the inputs of a model may have, by input, where a Core ML package or Core AI asset says so."""
    if source.suffix == ".aimodel":
        with CoreAiModel(source, executor="onnxruntime") as program:
            return coreai_verify.declared_shapes(program)
    if source.suffix == ".onnx":
        return {}
    package = read_package(source)
    return coreml_verify.declared_shapes(package, package.description.default_function)


def _telling(samples: Samples) -> Sequence[Mapping[str, Array]]:
    """The user's samples with which the program is compared: `_MOST_SAMPLES` of them, those with the largest
    numbers; none if the samples were generated.
    """
    if samples.is_made_up:
        return ()
    return sorted(samples.comparison, key=_largest, reverse=True)[:_MOST_SAMPLES]


def _largest(sample: Mapping[str, Array]) -> float:
    return max((float(np.abs(each).max()) for each in sample.values() if each.dtype.kind == "f"), default=0.0)


def _notes_on_halves(done: ConversionResult) -> list[str]:
    """Notes on the outputs that are wrong in fp16, or one note that says why the outputs were not compared.

    The notes do not decide whether the program is written: that depends on its agreement with the source.
    """
    if done.not_compared:
        return [f"which layers fp16 does not hold was not found out: {done.not_compared}"]
    return [
        f"fp16 alone is not exact: {each.described}" for each in done.verdicts or () if each.verdict is Verdict.WRONG
    ]


def require_arrays(source: Path) -> None:
    """Raise UnsupportedError if a Core ML package has images or labels, since the compressed package would have
    neither.
    """
    package = read_package(source)
    described = package.description.functions[package.description.default_function]
    for feature in (*described.inputs, *described.outputs):
        if not isinstance(feature.type, ArrayFeature):
            raise UnsupportedError(
                f"'{feature.name}' of '{source.name}' is no array: the compressed package would have arrays alone. "
                "Compress the model that the package was made of"
            )


def outputs_of_program(
    path: Path, samples: Sequence[Mapping[str, Array]], expected: Sequence[Mapping[str, Array]]
) -> Sequence[OutputAccuracy]:
    """Measure how far the outputs of a program differ from the expected ones, which have the source's names and
    types. The program runs on `ane`, which rounds to fp16: on `cpu` a program in fp16 computes in fp32.
    """
    accuracy = Accuracy()
    with load(path, "ane") as program:
        inputs = [spec.name for spec in program.signature.inputs]
        names = [spec.name for spec in program.signature.outputs]
        for sample, wanted in zip(samples, expected, strict=True):
            given = dict(zip(inputs, _in_order(sample, inputs), strict=True))
            found = program.run(given)
            # Match outputs by their order: a name that Core ML does not allow is changed in the program.
            by_name = {
                name: np.asarray(found[name if name in found else other])
                for (name, _), other in zip(wanted.items(), names, strict=True)
            }
            accuracy.add(wanted, {name: array.astype(wanted[name].dtype) for name, array in by_name.items()})
    return accuracy.outputs()


def _in_order(sample: Mapping[str, Array], inputs: Sequence[str]) -> list[Array]:
    arrays = list(sample.values())
    return [sample.get(name, arrays[position]) for position, name in enumerate(inputs)]
