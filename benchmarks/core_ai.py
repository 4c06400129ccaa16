"""The zoo's models as Core AI programs: seconds to convert, sizes, three witnesses, and how fast raised ones predict.

Usage: core_ai.py [--rounds 5] [--seconds 2] [--models minilm ...]

Each model is converted in fp32 and in fp16. The largest errors are those of Apple's interpreter, of Triune's Core ML
runtime on the same model converted to Core ML, and of ONNX Runtime on what is raised, all against ONNX Runtime on the
source; and of the first two against each other. Source and raised program then predict in turn, A B A B, with the same
inputs; the ratio of the medians is printed. No runtime of a Mac is involved.
"""

import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from real_models import MODELS, error_of, in_turn, main, source_of
from triune import coreai, coreml
from triune.coreai.lowering import LowerOptions, lower
from triune.coreml.lowering import LowerOptions as CoreMlOptions
from triune.coreml.lowering import lower as lower_to_coreml
from triune.graph.conversion.options import Precision
from triune.graph.conversion.shapes import parse_shapes
from triune.graph.load import load as load_graph
from triune.graph.passes.narrow import narrow_array


def measure(name: str, folder: Path, rounds: int, seconds: float) -> None:
    inputs, shapes, constants = MODELS[name]
    source = folder / name / "1" / "model.onnx"
    call_source, expected = source_of(source, inputs, constants)
    given = {key: narrow_array(key, np.asarray(value)) for key, value in inputs.items()}
    for precision in (Precision.FP32, Precision.FP16):
        path = folder / f"{name}-{precision.value}.aimodel"
        began = time.perf_counter()
        options = LowerOptions(precision=precision, shapes=parse_shapes(shapes), constants=constants)
        lower(load_graph(source), path, options)
        converted = time.perf_counter() - began
        with coreai.load(path, executor="interpreter") as model:
            began = time.perf_counter()
            apples = model.predict(given)
            interpreted = time.perf_counter() - began
        core_ml = _core_ml(source, folder, inputs, precision, parse_shapes(shapes), constants)
        with coreai.load(path, executor="onnxruntime") as model:
            raised = model.predict(given)
            ratios, times = in_turn(partial(model.predict, given), call_source, rounds, seconds)
        errors = [
            max(error_of(found[key], value) for key, value in expected.items()) for found in (apples, core_ml, raised)
        ]
        between = max(error_of(apples[key], core_ml[key].reshape(apples[key].shape)) for key in expected)
        largest = max(float(np.abs(value).max()) for value in expected.values())
        size = sum(each.stat().st_size for each in path.iterdir())
        print(
            f"{name:19} {precision.value}  converted in {converted:5.1f} s, {size / 1e6:6.1f} MB  largest error "
            f"{errors[0]:.2g} (Apple's interpreter, {interpreted:.2f} s) {errors[1]:.2g} (Core ML in Triune) "
            f"{errors[2]:.2g} (raised) {between:.2g} (first two) of {largest:.3g}  predict {times[0] * 1e3:7.2f} ms, "
            f"source {times[1] * 1e3:7.2f} ms, ratio {statistics.median(ratios):.2f}",
            flush=True,
        )


def _core_ml(
    source: Path, folder: Path, inputs: Any, precision: Precision, shapes: Any, constants: Any
) -> dict[str, Any]:
    options = CoreMlOptions(precision=precision, shapes=shapes, constants=constants)
    lowered = lower_to_coreml(load_graph(source), folder / "witness.mlpackage", options)
    results = coreml.load(lowered.path, executor="onnxruntime").predict(
        {lowered.inputs[key]: value for key, value in inputs.items()}
    )
    return {key: np.asarray(results[other]) for key, other in lowered.outputs.items()}


if __name__ == "__main__":
    main(__doc__, "Core AI programs", measure)
