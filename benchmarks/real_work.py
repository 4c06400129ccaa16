"""Real models under load: Triune against Triton on the same ONNX file, and against bare loops over the libraries.

Usage: real_work.py --peers DIR [--rounds 3] [--seconds 8] [--models minilm efficientnet_lite0] [--units cpu ...]

Triton runs the file through onnxruntime in its Python backend with dynamic batching (its onnxruntime backend is in no
package). The bare loops call onnxruntime and openvino directly at batch 1, 8 and 32: the limit. Servers are measured in
turn, A B A B, by the same closed-loop HTTP client (load.py); each figure is the median of the rounds.
"""

import argparse
import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from triune.hardware.cpu import read_cpu
from triune.hardware.units import detect_units
from triune.zoo.repository import build_repository

import load
from servers import Running, heading, triton, triune
from triune.core.units import Presence, Unit
from triune.runtimes import available

SEQUENCE = 128
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


def inputs_of(model: str, rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A request: MiniLM reads 128 tokens, EfficientNet one image."""
    rng = np.random.default_rng(seed)
    if model == "minilm":
        ids = rng.integers(1000, 30000, (rows, SEQUENCE), dtype=np.int64)
        return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    return {"image": rng.standard_normal((rows, 3, 224, 224), dtype=np.float32)}


OUTPUTS = {"minilm": "sentence_embedding", "efficientnet_lite0": "probabilities"}


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


def bare_rate(run: Callable[[], object], rows: int, seconds: float) -> float:
    """Rows a second of `run` in a loop."""
    run()
    count, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        run()
        count += rows
    return count / (time.perf_counter() - begin)


def bare_loops(path: Path, model: str, units: Sequence[Unit], seconds: float, rounds: int) -> dict[Unit, float]:
    """Print the bare loops' rates; return the best of each unit."""
    cpu = read_cpu()
    runtimes = available(detect_units(cpu))
    best: dict[Unit, float] = {}
    for name, unit in (("onnxruntime", Unit.CPU), ("openvino", Unit.CPU), ("openvino", Unit.AMX)):
        if unit not in units or name not in runtimes:
            continue
        executable = runtimes[name].load(path, unit=unit, num_threads=cpu.num_cores, options={})
        for rows in (1, 8, 32):
            run = functools.partial(executable.run, inputs_of(model, rows), [OUTPUTS[model]])
            rates = [bare_rate(run, rows, seconds / 2) for _ in range(rounds)]
            rate = statistics.median(rates)
            if name == "onnxruntime" or unit is Unit.AMX:
                best[unit] = max(best.get(unit, 0.0), rate)
            print(f"bare {name:12} {unit.value:4} batch {rows:<3} {rate:8.1f} rows/s", flush=True)
        executable.close()
    return best


@contextmanager
def ours(folder: Path, stack_port: int, units: Sequence[Unit], models: Sequence[str]) -> Iterator[Running]:
    build_repository(folder, models=models, units=units)
    label = "triune " + "+".join(unit.value for unit in units)
    with triune(folder, label=label, port=stack_port) as running:
        yield running


def measure(servers: Sequence[Running], model: str, rounds: int, seconds: float) -> dict[tuple[str, int], float]:
    """Load every server at every concurrency, in turn; print and return the median rates."""
    requests = [load.encode("127.0.0.1", model, inputs_of(model, 1, seed), [OUTPUTS[model]]) for seed in range(4)]
    medians: dict[tuple[str, int], float] = {}
    for server in servers:
        load.run(server.host, server.http_port, requests, 8, 2)
    for connections in CONCURRENCIES:
        results: dict[str, list[load.Result]] = {server.label: [] for server in servers}
        for _ in range(rounds):
            for server in servers:
                results[server.label].append(load.run(server.host, server.http_port, requests, connections, seconds))
        for label, runs in results.items():
            if errors := [error for run in runs for error in run.errors]:
                raise SystemExit(f"{label}: {len(errors)} errors, the first: {errors[0]}")
            rate = medians[label, connections] = statistics.median(run.rate for run in runs)
            p50, p99 = (statistics.median(run.percentile_ms(each) for run in runs) for each in (50, 99))
            print(f"c={connections:<3} {label:16} {rate:8.1f} inf/s  p50 {p50:8.1f} ms  p99 {p99:8.1f} ms", flush=True)
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="without it Triton is left out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--models", nargs="+", default=["minilm", "efficientnet_lite0"])
    options = parser.parse_args()
    statuses = detect_units(read_cpu())
    units = [each.unit for each in statuses if each.presence is Presence.PRESENT and each.unit in (Unit.CPU, Unit.AMX)]
    print(heading("Real work"), flush=True)
    for model in options.models:
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            print(f"\n{model}", flush=True)
            sets = [[unit] for unit in units] + ([units] if len(units) > 1 else [])
            build_repository(Path(folder) / "source", models=[model], units=[Unit.CPU])
            path = Path(folder) / "source" / model / "1" / "model.onnx"
            best = bare_loops(path, model, units, options.seconds, options.rounds)
            servers = [
                stack.enter_context(ours(Path(folder) / str(index), 19000 + 10 * index, each, [model]))
                for index, each in enumerate(sets)
            ]
            if options.peers:
                triton_repository(Path(folder) / "triton", Path(folder) / "source", [model])
                servers.append(stack.enter_context(triton(Path(folder) / "triton", options.peers)))
            medians = measure(servers, model, options.rounds, options.seconds)
            for unit, limit in best.items():
                ratio = medians[f"triune {unit.value}", 32] / limit
                print(f"triune {unit.value} at c=32 / best bare loop: {ratio:.2f}")
            if Unit.AMX in best:
                print(f"amx / cpu at c=32: {medians['triune amx', 32] / medians['triune cpu', 32]:.2f}")
            if options.peers:
                for connections in CONCURRENCIES:
                    ratio = medians["triune cpu", connections] / medians["triton", connections]
                    print(f"triune cpu / triton at c={connections}: {ratio:.2f}")


if __name__ == "__main__":
    main()
