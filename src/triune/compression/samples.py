"""Samples for calibration and comparison: the user's files, or generated inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto

from triune.core.datatypes import Array
from triune.core.errors import InternalError, InvalidArgumentError, NotFoundError, UnsupportedError
from triune.core.numpy_files import read_npy, read_npz
from triune.graph.conversion.shapes import InputShape, inputs_of
from triune.graph.custom import NO_CUSTOM_OPS, CustomOps
from triune.graph.custom.session import session_of
from triune.graph.verify import check_given, samples_of

MOST = 512
"""The largest number of samples: more samples hardly widen any range, and each is run several times."""

_HELD_OUT = 4
"""If the user gives 8 or more samples, every fourth is not used for calibration, and only these are used for the
comparison.
"""
_FEWEST_TO_HOLD_OUT = 8

_KINDS = ("noise", "fractions", "masks", "nearly equal numbers")
"""The kinds of made-up inputs (`samples_of`) on which compressed models are compared. Other kinds, such as zeros and
ties, show faults of conversions.
"""

_WHAT = "samples (--calibrate)"


@dataclass(frozen=True, slots=True)
class Samples:
    """Inputs of a model.

    Attributes:
        calibration: the samples for calibration.
        comparison: the samples on which source and result are compared.
        origin: a description of their source.
        is_made_up: whether they are made up, not the user's.
    """

    calibration: Sequence[Mapping[str, Array]]
    comparison: Sequence[Mapping[str, Array]]
    origin: str
    is_made_up: bool


def made_up(model: ModelProto, shapes: Mapping[str, InputShape], ops: CustomOps = NO_CUSTOM_OPS) -> Samples:
    """Make up inputs of a model, the same in each call. Inputs that the model refuses are left out.

    `ops` are the custom operators that numpy computes.

    Raises:
        UnsupportedError: values cannot be made up, or the model refuses all of them.
    """
    sets = [each for each in samples_of(model, shapes, {}, is_half=True) if each.name in _KINDS]
    copy = ModelProto()
    copy.CopyFrom(model)
    session = session_of(copy, "the model", ops)
    arrays: list[Mapping[str, Array]] = []
    refusal: InvalidArgumentError | InternalError | None = None
    for each in sets:
        try:
            session.run(each.arrays, {})
            arrays.append(each.arrays)
        except (InvalidArgumentError, InternalError) as error:
            refusal = error
    if not arrays:
        raise UnsupportedError(
            f"no inputs can be made up that the model takes: {' '.join(str(refusal).split())}; give samples with "
            "--calibrate"
        ) from refusal
    return Samples(arrays, arrays, f"{len(arrays)} made-up inputs", is_made_up=True)


def read_samples(path: Path, model: ModelProto) -> Samples:
    """Read a user's samples.

    Args:
        path: an .npz with an array for each input, whose first axis counts samples (or rows of batches, for an input
            with a batch axis); or a folder of .npz files with a sample each, or of .npy files for a model with one
            input.
        model: the model that takes them.

    Raises:
        NotFoundError: there is no such file.
        InvalidArgumentError: there are no samples, or one has a wrong name, type or shape, or NaN or infinities.
    """
    inputs = [value.name for value in inputs_of(model.graph)]
    if not path.exists():
        raise NotFoundError(f"there are no samples '{path}' (--calibrate)")
    found = _in_folder(path, inputs) if path.is_dir() else _in_file(path, model)
    if not found:
        raise InvalidArgumentError(f"'{path}' has no samples (--calibrate): give an .npz, or a folder of .npz or .npy")
    if len(found) > MOST:
        raise InvalidArgumentError(f"'{path}' has {len(found)} samples (--calibrate); at most {MOST} are used: choose")
    for number, sample in enumerate(found):
        _check(sample, model, inputs, f"sample {number} of '{path}'")
    if len(found) < _FEWEST_TO_HOLD_OUT:
        return Samples(found, found, f"{len(found)} samples of '{path.name}'", is_made_up=False)
    held = found[::_HELD_OUT]
    used = [each for number, each in enumerate(found) if number % _HELD_OUT]
    origin = f"{len(held)} samples of '{path.name}', apart from the {len(used)} that calibration may use"
    return Samples(used, held, origin, is_made_up=False)


def _in_folder(path: Path, inputs: Sequence[str]) -> list[dict[str, Array]]:
    found: list[dict[str, Array]] = []
    for file in sorted(path.iterdir()):
        if file.suffix == ".npz":
            found.append(read_npz(file, _WHAT))
        elif file.suffix == ".npy":
            if len(inputs) != 1:
                raise InvalidArgumentError(
                    f"'{file}' is one array, and the model has the inputs {', '.join(inputs)}: give .npz files"
                )
            found.append({inputs[0]: read_npy(file, _WHAT)})
    return found


def _in_file(path: Path, model: ModelProto) -> list[dict[str, Array]]:
    if path.suffix != ".npz":
        raise InvalidArgumentError(f"samples are an .npz or a folder (--calibrate), not '{path.name}'")
    arrays = read_npz(path, _WHAT)
    ranks = {value.name: value.type.tensor_type.shape for value in inputs_of(model.graph)}
    counts: dict[str, int] = {}
    parts: dict[str, list[Array]] = {}
    for name, array in arrays.items():
        if name not in ranks:
            raise _unknown(name, list(ranks))
        dims = ranks[name].dim
        if array.ndim == len(dims) + 1:
            parts[name] = list(array)
        elif array.ndim == len(dims) and array.ndim:
            batch = dims[0].dim_value if dims[0].HasField("dim_value") else 1
            if not batch or len(array) % batch:
                raise InvalidArgumentError(
                    f"input '{name}' has {len(array)} rows in '{path}', and the model takes {batch} at once: give a "
                    "multiple of that"
                )
            parts[name] = [array[begin : begin + batch] for begin in range(0, len(array), batch)]
        else:
            raise InvalidArgumentError(
                f"input '{name}' has {array.ndim} axes in '{path}'; the model takes {len(dims)}, or one more that "
                "counts samples"
            )
        counts[name] = len(parts[name])
    if len(set(counts.values())) > 1:
        raise InvalidArgumentError(f"the inputs in '{path}' have different numbers of samples: {counts}")
    count = next(iter(counts.values()), 0)
    return [{name: part[number] for name, part in parts.items()} for number in range(count)]


def _unknown(name: str, inputs: Sequence[str]) -> InvalidArgumentError:
    return InvalidArgumentError(f"the samples have '{name}', and the model has the inputs {', '.join(inputs)}")


def _check(sample: Mapping[str, Array], model: ModelProto, inputs: Sequence[str], where: str) -> None:
    missing = [name for name in inputs if name not in sample]
    if missing:
        raise InvalidArgumentError(f"{where} has no '{missing[0]}'; the model takes {', '.join(inputs)}")
    for name in sample:
        if name not in inputs:
            raise _unknown(name, inputs)
    try:
        check_given(model, sample)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{where}: {error}") from error
    for name, array in sample.items():
        if not array.size:
            raise InvalidArgumentError(f"{where}: input '{name}' is empty")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InvalidArgumentError(f"{where}: input '{name}' has NaN or infinities, of which no range can be taken")
