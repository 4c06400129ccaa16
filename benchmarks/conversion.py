"""What conversions take: seconds, and memory at its peak, of the zoo's models and of one with large weights.

    python benchmarks/conversion.py [--models NAME ...] [--megabytes 500]

Each is `triune convert` in a process of its own. From its memory that of a conversion of a model without weights is
subtracted: what Python and the libraries take. The factor is to the size of the model's files.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from real_models import MODELS
from servers import heading

_FORMS = [(kind, precision) for kind in ("mlpackage", "aimodel") for precision in ("fp32", "fp16")]
_NUM_WEIGHTS = 8

# A process that was forked counts the size of its parent, so this small one stands between.
_RUN_AND_TELL = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss)
"""


def convert(source: Path, output: Path, options: Sequence[str]) -> tuple[float, int]:
    """The seconds, and the bytes at the peak."""
    command = [sys.executable, "-m", "triune", "convert", str(source), "-o", str(output), *options]
    began = time.perf_counter()
    told = subprocess.run([sys.executable, "-c", _RUN_AND_TELL, *command], check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    code, peak = map(int, told.stdout.split())
    if code:
        raise SystemExit(f"{' '.join(command)} ended with {code}")
    return seconds, peak * (1 if sys.platform == "darwin" else 1024)


def save_chain(path: Path, megabytes: int) -> None:
    """Products with square matrices beside the model, of so many megabytes in all."""
    size = max(1, int((megabytes * 1e6 / 4 / _NUM_WEIGHTS) ** 0.5))
    rng = np.random.default_rng(0)
    names = [f"w{place}" for place in range(_NUM_WEIGHTS)]
    nodes = [helper.make_node("MatMul", [f"x{place}", name], [f"x{place + 1}"]) for place, name in enumerate(names)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size]) for name in ("x0", f"x{_NUM_WEIGHTS}")]
    weights = [numpy_helper.from_array(rng.random((size, size), np.float32) - np.float32(0.5), name) for name in names]
    model = helper.make_model(
        helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data")


def sources(folder: Path, names: Sequence[str], megabytes: int) -> Iterator[tuple[str, Path, list[str]]]:
    """Models by name, with the options that they are converted with."""
    from triune.zoo.packages import PackageCache
    from triune.zoo.repository import build_repository

    build_repository(folder, cache=PackageCache(), models=list(names))
    for name in names:
        _, shapes, constants = MODELS[name]
        options = [word for shape in shapes for word in ("--shape", shape)]
        options += [word for key, value in constants.items() for word in ("--constant", f"{key}={int(value)}")]
        yield name, folder / name / "1" / "model.onnx", options
    if megabytes:
        path = folder / "chain.onnx"
        save_chain(path, megabytes)
        yield f"chain of {megabytes} MB", path, []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--megabytes", type=int, default=500, help="weights of the model that is made; 0: none")
    given = parser.parse_args()
    print(heading("Conversions"))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        save_chain(folder / "small.onnx", 0)
        least: Mapping[str, int] = {
            kind: convert(folder / "small.onnx", folder / f"small.{kind}", [])[1] for kind in ("mlpackage", "aimodel")
        }
        for name, path, options in sources(folder, given.models, given.megabytes):
            size = sum(each.stat().st_size for each in path.parent.glob(f"{path.name}*"))
            for kind, precision in _FORMS:
                output = folder / f"converted.{kind}"
                seconds, peak = convert(path, output, [*options, "--precision", precision])
                more = peak - least[kind]
                print(
                    f"{name:19} {size / 1e6:7.1f} MB  {kind:9} {precision}  {seconds:5.1f} s  "
                    f"{peak / 1e6:6.0f} MB, {more / 1e6:6.0f} beyond nothing: {more / size:4.1f} times the model",
                    flush=True,
                )


if __name__ == "__main__":
    main()
