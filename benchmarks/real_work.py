"""Real models under load: Triune against Triton on the same ONNX file, and against bare loops over the libraries.

Usage: real_work.py --peers DIR [--rounds 3] [--seconds 8] [--models minilm efficientnet_lite0] [--units cpu ...]

Triton runs the file through onnxruntime in its Python backend with dynamic batching (its onnxruntime backend is in no
package). The bare loops call onnxruntime and openvino directly at batch 1, 8 and 32: the limit. Servers are measured in
turn, A B A B, by the same closed-loop HTTP client (load.py); each figure is the median of the rounds.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import psutil

import load
from bare import OUTPUTS, inputs_of
from servers import ENVIRONMENT, Running, heading, pinned, triton, triune
from triune.core.units import Presence, Unit
from triune.hardware.cpu import read_cpu
from triune.hardware.units import detect_units
from triune.zoo.repository import build_repository

CONCURRENCIES = (1, 8, 32)

PYTHON_MODEL = """
import os
import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = os.cpu_count()
        path = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = [each.name for each in self.session.get_inputs()]

    def execute(self, requests):
        rows = [[pb_utils.get_input_tensor_by_name(r, n).as_numpy() for n in self.inputs] for r in requests]
        feed = {n: np.concatenate([row[i] for row in rows]) for i, n in enumerate(self.inputs)}
        result = self.session.run(["OUTPUT"], feed)[0]
        ends = np.cumsum([len(row[0]) for row in rows])[:-1]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT", part)]) for part in np.split(result, ends)]
"""


def triton_repository(folder: Path, source: Path, models: Sequence[str]) -> None:
    """The same ONNX files behind Triton's Python backend, with the dynamic batching that Triune's config has."""
    for model in models:
        version = folder / model / "1"
        version.mkdir(parents=True)
        (version / "model.onnx").symlink_to(source / model / "1" / "model.onnx")
        (version / "model.py").write_text(PYTHON_MODEL.replace("OUTPUT", OUTPUTS[model]))
        inputs = ", ".join(
            f'{{ name: "{name}" data_type: TYPE_{"INT64" if array.dtype == np.int64 else "FP32"} '
            f"dims: [ {', '.join(map(str, array.shape[1:]))} ] }}"
            for name, array in inputs_of(model, 1).items()
        )
        size = 384 if model == "minilm" else 1000
        (folder / model / "config.pbtxt").write_text(
            f'name: "{model}" backend: "python" max_batch_size: 32\ninput [ {inputs} ]\n'
            f'output [ {{ name: "{OUTPUTS[model]}" data_type: TYPE_FP32 dims: [ {size} ] }} ]\n'
            "instance_group [ { count: 1 kind: KIND_CPU } ]\n"
            "dynamic_batching { max_queue_delay_microseconds: 2000 }\n"
        )


def bare_loops(path: Path, model: str, cores: str, seconds: float) -> dict[str, float]:
    """Rows a second of the bare loops, by runtime, unit and batch size; in a process of its own (bare.py)."""
    command = [*pinned(cores), sys.executable, str(Path(__file__).with_name("bare.py")), str(path), model, str(seconds)]
    result = subprocess.run(command, check=True, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    return json.loads(result.stdout)


def limits(rates: dict[str, float]) -> dict[str, float]:
    """The best rate of each unit's own runtime over the batch sizes: what a server can reach at most."""
    best: dict[str, float] = {}
    for key, rate in rates.items():
        runtime, unit, _ = key.split()
        if runtime == ("openvino" if unit == "amx" else "onnxruntime"):
            best[unit] = max(best.get(unit, 0.0), rate)
    return best


@contextmanager
def ours(folder: Path, port: int, units: Sequence[Unit], models: Sequence[str], cores: str) -> Iterator[Running]:
    build_repository(folder, models=models, units=units)
    label = "triune " + "+".join(unit.value for unit in units)
    with triune(folder, label=label, port=port, cores=cores) as running:
        yield running


def measure(servers: Sequence[Running], model: str, path: Path, options: argparse.Namespace) -> None:
    """Load every server at every concurrency, and run the bare loops, in turn; print medians, and ratios of medians.

    A server's share of the bare loop is the median of the shares in each round, for neighbours disturb the rounds.
    """
    requests = [load.encode("127.0.0.1", model, inputs_of(model, 1, seed), [OUTPUTS[model]]) for seed in range(4)]
    medians: dict[tuple[str, int], float] = {}
    bare: list[dict[str, float]] = []
    shares: dict[str, list[float]] = {}
    for server in servers:
        load.run(server.host, server.http_port, requests, 8, 2)
    for connections in CONCURRENCIES:
        results: dict[str, list[load.Result]] = {server.label: [] for server in servers}
        for _ in range(options.rounds):
            for server in servers:
                results[server.label].append(
                    load.run(server.host, server.http_port, requests, connections, options.seconds)
                )
            if connections == max(CONCURRENCIES):
                bare.append(bare_loops(path, model, options.cores, options.seconds / 3))
                for unit, limit in limits(bare[-1]).items():
                    shares.setdefault(unit, []).append(results[f"triune {unit}"][-1].rate / limit)
        for label, runs in results.items():
            if errors := [error for run in runs for error in run.errors]:
                raise SystemExit(f"{label}: {len(errors)} errors, the first: {errors[0]}")
            rate = medians[label, connections] = statistics.median(run.rate for run in runs)
            p50, p99 = (statistics.median(run.percentile_ms(each) for run in runs) for each in (50, 99))
            print(f"c={connections:<3} {label:16} {rate:8.1f} inf/s  p50 {p50:8.1f} ms  p99 {p99:8.1f} ms", flush=True)
    for key in bare[0]:
        print(f"bare {key:20} {statistics.median(rates[key] for rates in bare):8.1f} rows/s")
    for unit, each in shares.items():
        share, lowest, highest = statistics.median(each), min(each), max(each)
        print(f"triune {unit} at c=32 / its best bare loop: {share:.2f} ({lowest:.2f} to {highest:.2f})")
    for connections in CONCURRENCIES:
        cpu = medians["triune cpu", connections]
        if ("triune amx", connections) in medians:
            print(f"triune amx / triune cpu at c={connections}: {medians['triune amx', connections] / cpu:.2f}")
        if ("triton", connections) in medians:
            print(f"triune cpu / triton at c={connections}: {cpu / medians['triton', connections]:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="without it Triton is left out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--cores", default="", help="servers and bare loops run on these ('0,1'), the load on the rest")
    parser.add_argument("--models", nargs="+", default=["minilm", "efficientnet_lite0"])
    options = parser.parse_args()
    statuses = detect_units(read_cpu())
    units = [each.unit for each in statuses if each.presence is Presence.PRESENT and each.unit in (Unit.CPU, Unit.AMX)]
    print(heading("Real work"), f"servers on cores {options.cores}" if options.cores else "", flush=True)
    if options.cores:
        process = psutil.Process()
        process.cpu_affinity([core for core in process.cpu_affinity() if str(core) not in options.cores.split(",")])
    for model in options.models:
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            print(f"\n{model}", flush=True)
            sets = [[unit] for unit in units] + ([units] if len(units) > 1 else [])
            build_repository(Path(folder) / "source", models=[model], units=[Unit.CPU])
            path = Path(folder) / "source" / model / "1" / "model.onnx"
            servers = [
                stack.enter_context(ours(Path(folder) / str(index), 19000 + 10 * index, each, [model], options.cores))
                for index, each in enumerate(sets)
            ]
            if options.peers:
                triton_repository(Path(folder) / "triton", Path(folder) / "source", [model])
                servers.append(stack.enter_context(triton(Path(folder) / "triton", options.peers)))
            measure(servers, model, path, options)


if __name__ == "__main__":
    main()
