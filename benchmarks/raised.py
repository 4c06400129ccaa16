"""How fast programs raised from Core AI assets run on a unit, beside the ONNX models that the assets were made of.

Usage: raised.py make FOLDER [--models minilm ...]
       raised.py run FOLDER --unit amx [--threads 2] [--rounds 5] [--seconds 2]

`make` converts each model to Core AI in fp32, raises the asset, and leaves source, raised model and inputs in a folder,
so that `run` needs no library of Apple's and can be done on another machine. `run` has Triune's runtime for that unit
compute both, A B A B, and prints the ratio of the medians and the largest difference between their answers.
"""

import argparse
import statistics
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from real_models import MODELS, in_turn
from servers import heading
from triune.core.errors import UnsupportedError
from triune.core.units import Unit
from triune.hardware.cpu import read_cpu
from triune.hardware.units import detect_units


def make(folder: Path, models: list[str]) -> None:
    from triune.coreai.lowering import LowerOptions, lower
    from triune.coreai.program import load_program
    from triune.coreai.raising import raise_function
    from triune.graph.conversion.constants import bind_constants, typed_constants
    from triune.graph.conversion.shapes import parse_shapes
    from triune.graph.load import load
    from triune.graph.passes.narrow import narrow_array
    from triune.graph.weight_files import with_data
    from triune.zoo.packages import PackageCache
    from triune.zoo.repository import build_repository

    with tempfile.TemporaryDirectory() as scratch:
        build_repository(Path(scratch), cache=PackageCache(), models=models)
        for name in models:
            inputs, shapes, constants = MODELS[name]
            model = load(Path(scratch) / name / "1" / "model.onnx")
            asset = Path(scratch) / f"{name}.aimodel"
            lower(model, asset, LowerOptions(shapes=parse_shapes(shapes), constants=constants))
            (folder / name).mkdir(parents=True, exist_ok=True)
            bind_constants(model, typed_constants(model, constants))
            onnx.save(with_data(model), folder / name / "source.onnx")
            onnx.save(raise_function(load_program(asset), "main"), folder / name / "raised.onnx")
            np.savez(folder / name / "source.npz", **inputs)
            np.savez(folder / name / "raised.npz", **{key: narrow_array(key, each) for key, each in inputs.items()})
            print(f"made {name}", flush=True)


def run(folder: Path, unit: Unit, threads: int, rounds: int, seconds: float) -> None:
    from triune.runtimes.openvino import OpenVino

    print(heading(f"Raised from Core AI, on {unit.value} (openvino, {threads} threads)"))
    for place in sorted(path.parent for path in folder.glob("*/raised.onnx")):
        calls, answers = [], []
        for kind in ("raised", "source"):
            runtime = OpenVino(detect_units(read_cpu()))
            try:
                loaded = runtime.load(place / f"{kind}.onnx", unit=unit, num_threads=threads, options={})
            except UnsupportedError as error:
                print(f"{place.name:19} {kind} is refused: {error}", flush=True)
                continue
            inputs = dict(np.load(place / f"{kind}.npz"))
            names = [spec.name for spec in loaded.signature.outputs]
            answers.append([loaded.run(inputs, names)[name] for name in names])
            calls.append(partial(loaded.run, inputs, names))
        if len(calls) < 2:
            continue
        ratios, times = in_turn(calls[0], calls[1], rounds, seconds)
        error = max(float(np.max(np.abs(a.astype(np.float64) - b))) for a, b in zip(*answers, strict=True))
        largest = max(float(np.max(np.abs(each))) for each in answers[1])
        print(
            f"{place.name:19} raised {times[0] * 1e3:7.2f} ms, source {times[1] * 1e3:7.2f} ms, ratio "
            f"{statistics.median(ratios):.2f}, largest difference {error:.2g} of {largest:.3g}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "run"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--unit", type=Unit, default=Unit.AMX, choices=[Unit.AMX, Unit.CPU])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    given = parser.parse_args()
    if given.what == "make":
        make(given.folder, given.models)
    else:
        run(given.folder, given.unit, given.threads, given.rounds, given.seconds)


if __name__ == "__main__":
    main()
