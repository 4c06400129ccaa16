"""The compressed form that the arguments of `triune.compress` name. Contradictory arguments are refused."""

from dataclasses import replace
from pathlib import Path
from typing import Final, Literal, TypeAlias

from onnx import ModelProto

from triune.compression.choice import decoder_form_for, form_for
from triune.compression.options import Activations, Calibration, Method, Options, Per, WeightForm
from triune.core.errors import InvalidArgumentError
from triune.core.units import Unit

WeightsName: TypeAlias = Literal["int8", "int4", "fp16", "bf16", "palette", "sparse"]
MethodName: TypeAlias = Literal["nearest", "gptq", "awq", "awq-gptq", "smoothquant", "best"]

LEAST: Final = 0.9
"""The smallest agreement with the source if the caller asks for none. A model that agrees less is not written, unless
the caller forces it.
"""

PROGRAMS: Final = (".mlpackage", ".aimodel")
"""The file suffixes of Apple's programs."""


def check_names(source: Path, target: Path) -> None:
    """Raise InvalidArgumentError unless `target` has a suffix of a compressed model (.onnx, .mlpackage or .aimodel),
    and is another file than `source`.
    """
    if target.suffix not in (".onnx", *PROGRAMS):
        raise InvalidArgumentError(f"'{target.name}' is no compressed model: name a .onnx, .mlpackage or .aimodel")
    if source.resolve() == target.resolve():
        raise InvalidArgumentError(f"'{target}' would replace the source: name another file")


def least_agreement(keep_accuracy: float | None) -> float:
    """The least agreement of a result that is written. Raises InvalidArgumentError if it is not between 0 and 1."""
    if keep_accuracy is None:
        return LEAST
    if not 0 < keep_accuracy <= 1:
        raise InvalidArgumentError(f"an accuracy of {keep_accuracy:g} is to be kept; give a share between 0 and 1")
    return keep_accuracy


def form_of(
    weights: WeightsName | WeightForm | None,
    *,
    per: str | Per,
    group: int | None,
    symmetric: bool,
    bits: int,
    sparsity: float | None,
    n_m: tuple[int, int] | None,
    activations: str | Activations | None,
    method: str | Method,
) -> Options | None:
    """The form that the arguments describe, as options; None if `weights` is None. The arguments are those of
    `triune.compress`.
    """
    if weights is None:
        return None
    return Options(
        weights=WeightForm(weights),
        per=Per(per),
        group=group,
        is_symmetric=symmetric,
        bits=bits,
        sparsity=sparsity,
        n_m=n_m,
        activations=None if activations is None else Activations(activations),
        method=Method(method),
    )


def options_of(
    model: ModelProto, unit: str | None, target: Path, form: Options | None, calibration: str | Calibration
) -> Options:
    """The compressed form for a tensor model: `form`, or, if that is None, the form from which the unit gains most.

    Raises:
        InvalidArgumentError: no form and no unit is named, or a program of Apple's has no such form.
    """
    if form is None:
        if unit is None:
            raise InvalidArgumentError("name a form (--weights int8) or a unit that is to gain (--for amx)")
        chosen = form_for(Unit(unit), model, is_program=target.suffix in PROGRAMS)
        return replace(chosen, calibration=Calibration(calibration))
    options = replace(form, calibration=Calibration(calibration))
    if target.suffix in PROGRAMS and options.activations is not None:
        raise InvalidArgumentError(
            "activations of 8 bits (--activations) are for .onnx; programs of Apple's compute in fp16: leave them out"
        )
    if target.suffix in PROGRAMS and options.is_float:
        raise InvalidArgumentError(
            "a program has floats of 16 bits anyway (triune convert): for a smaller one give --weights int8"
        )
    return options


def checkpoint_options_of(unit: str | None, form: Options | None) -> Options:
    """The compressed form for a decoder's checkpoint: `form`, or the form from which the unit gains most.
    Raises InvalidArgumentError if neither a form nor a unit is named.
    """
    if form is not None:
        return form
    if unit is None:
        raise InvalidArgumentError("name a form (--weights int4) or a unit that is to gain (--for gpu)")
    return decoder_form_for(Unit(unit))
