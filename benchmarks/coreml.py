"""The zoo's models as Core ML programs: seconds to convert, largest error, and how fast Triune's runtime predicts.

Usage: coreml.py [--rounds 5] [--seconds 2] [--models minilm ...]

Each model is converted in fp32 and in fp16, run by both of Triune's executors (ONNX Runtime on the raised program, and
the numpy interpreter), and compared with ONNX Runtime on the source. The source and the raised program then predict in
turn, A B A B, with the same inputs; the ratio of the medians is printed. No Core ML of Apple's is involved.
"""

import statistics
import time
from functools import partial
from pathlib import Path

import numpy as np

from real_models import MODELS, error_of, in_turn, main, source_of
from triune.coreml import load
from triune.coreml.lowering import LowerOptions, lower
from triune.graph.conversion.options import Precision
from triune.graph.conversion.shapes import parse_shapes
from triune.graph.load import load as load_graph


def measure(name: str, folder: Path, rounds: int, seconds: float) -> None:
    inputs, shapes, constants = MODELS[name]
    source = folder / name / "1" / "model.onnx"
    call_source, expected = source_of(source, inputs, constants)
    for precision in (Precision.FP32, Precision.FP16):
        began = time.perf_counter()
        options = LowerOptions(precision=precision, shapes=parse_shapes(shapes), constants=constants)
        lowered = lower(load_graph(source), folder / f"{name}-{precision.value}.mlpackage", options)
        converted = time.perf_counter() - began
        given = {lowered.inputs[key]: value for key, value in inputs.items()}
        errors = []
        for executor in ("onnxruntime", "reference"):
            model = load(folder / f"{name}-{precision.value}.mlpackage", executor=executor)
            results = model.predict(given)
            errors.append(max(error_of(results[lowered.outputs[key]], value) for key, value in expected.items()))
        model = load(folder / f"{name}-{precision.value}.mlpackage", executor="onnxruntime")
        ratios, times = in_turn(partial(model.predict, given), call_source, rounds, seconds)
        largest = max(float(np.abs(value).max()) for value in expected.values())
        print(
            f"{name:19} {precision.value}  converted in {converted:5.1f} s  largest error {errors[0]:.2g} "
            f"(onnxruntime) {errors[1]:.2g} (numpy) of {largest:.3g}  predict {times[0] * 1e3:7.2f} ms, source "
            f"{times[1] * 1e3:7.2f} ms, ratio {statistics.median(ratios):.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main(__doc__, "Core ML programs in Triune's runtime", measure)
