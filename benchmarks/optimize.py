"""Measure what `triune optimize` gains on real models, beside onnxsim, onnxslim and ONNX Runtime's own optimizer.

    python benchmarks/optimize.py --peers VENV/bin/python     # a venv with onnxsim and onnxslim
    python benchmarks/optimize.py --models minilm --units cpu --rounds 30
    python benchmarks/optimize.py --forms                     # single operators, recovered and in their parts

Each model is optimized at each level and by each peer, and loaded with `triune.load` on each unit: ONNX Runtime in fp32
on `cpu`, OpenVINO in bf16 on `amx`. The files take turns, so that a disturbance meets all of them; the table has the
median and the shortest time of a call, and the nodes with those of subgraphs. Both runtimes optimize each file once
more when they load it. ONNX Runtime's optimizer is that of the level "extended", saved as a file. Without --peers
onnxsim and onnxslim are left out.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

import triune
from triune.core.errors import TriuneError
from triune.graph.optimizing.report import op_counts
from triune.zoo.repository import build_repository

MODELS = ("minilm", "efficientnet_lite0", "whisper_encoder", "rapidocr_rec", "magika")
WHISPER = "whisper-tiny.en"
PEERS = {
    "onnxsim": "import sys, onnx, onnxsim; m, ok = onnxsim.simplify(onnx.load(sys.argv[1])); assert ok; "
    "onnx.save(m, sys.argv[2])",
    "onnxslim": "import sys, onnxslim; onnxslim.slim(sys.argv[1], sys.argv[2])",
}
LENGTH = 64
"""Tokens, and parts of a picture's width."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--units", nargs="+", choices=("cpu", "amx"), default=("cpu", "amx"))
    parser.add_argument("--peers", help="the Python of a venv with onnxsim and onnxslim")
    parser.add_argument("--rounds", type=int, default=25, help="how often each file runs")
    parser.add_argument("--forms", action="store_true", help="measure single operators instead")
    arguments = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; onnxruntime {onnxruntime.__version__}")
    if arguments.forms:
        measure_forms(arguments.rounds)
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.models:
            source = file_of(name, Path(folder))
            for unit in arguments.units:
                measure(name, source, unit, arguments.peers, arguments.rounds, Path(folder))


def file_of(name: str, folder: Path) -> Path:
    """The model's ONNX file."""
    recipe = WHISPER if name == "whisper_encoder" else name
    build_repository(folder / "repository", models=[recipe])
    if recipe == WHISPER:
        triune.convert(folder / "repository" / WHISPER, folder / f"{name}.onnx", function="encoder")
        return folder / f"{name}.onnx"
    return folder / "repository" / name / "1" / "model.onnx"


def inputs_of(name: str) -> Mapping[str, Any]:
    rng = np.random.default_rng(4)
    match name:
        case "efficientnet_lite0":
            return {"image": rng.standard_normal((1, 3, 224, 224), np.float32)}
        case "magika":
            return {"bytes": rng.integers(0, 257, (1, 2048)).astype(np.int32)}
        case "minilm":
            shape = (1, LENGTH)
            ids = rng.integers(1000, 20000, shape)
            return {
                "input_ids": ids,
                "attention_mask": np.ones(shape, np.int64),
                "token_type_ids": np.zeros(shape, np.int64),
            }
        case "rapidocr_rec":
            return {"x": rng.random((1, 3, 48, 5 * LENGTH), np.float32) * 2 - 1}
        case _:
            return {"input_features": rng.standard_normal((1, 80, 3000), np.float32)}


def measure(name: str, source: Path, unit: str, peers: str | None, rounds: int, folder: Path) -> None:
    """Print a table of the files that optimizers make of a model."""
    files = {"as it is": source}
    makers: dict[str, Callable[[Path], object]] = {
        level: lambda path, level=level: triune.optimize(source, path, level=level, unit=unit)  # type: ignore[arg-type]
        for level in ("O1", "O2", "O3")
    }
    makers["onnxruntime"] = lambda path: save_by_onnxruntime(source, path)
    for peer, code in PEERS.items() if peers else ():
        makers[peer] = lambda path, code=code: subprocess.run(
            [str(peers), "-c", code, str(source), str(path)], check=True, capture_output=True, timeout=600
        )
    seconds: dict[str, float] = {}
    for label, make in makers.items():
        path = folder / f"{name}-{unit}-{label}.onnx"
        started = time.perf_counter()
        try:
            make(path)
        except (TriuneError, subprocess.SubprocessError) as error:
            print(f"{name} {label}: {error}")
            continue
        files[label], seconds[label] = path, time.perf_counter() - started
    runs: dict[str, Callable[[], Mapping[str, Any]]] = {}
    loaded: dict[str, Any] = {}
    inputs = inputs_of(name)
    for label, path in files.items():
        try:
            loaded[label] = triune.load(path, unit)
            runs[label] = lambda model=loaded[label]: model.run(inputs)
            runs[label]()
        except TriuneError as error:
            runs.pop(label, None)
            print(f"{name} {label} on {unit}: {str(error)[:200]}")
    times = in_turns(runs, rounds)
    print(f"\n{name} on {unit}, load {os.getloadavg()[0]:.1f}")
    print(
        f"{'':12} {'nodes':>6} {'median ms':>10} {'shortest':>9} {'of the file':>11} {'error':>8} {'optimized in':>12}"
    )
    expected = runs["as it is"]()
    for label, path in files.items():
        nodes = op_counts(onnx.load(path, load_external_data=False)).total()
        if label not in times:
            print(f"{label:12} {nodes:6} {'does not load':>10}")
            continue
        found = runs[label]()
        error = max(
            float(np.max(np.abs(found[key] - expected[key])) / np.max(np.abs(expected[key]))) for key in expected
        )
        median, least = statistics.median(times[label]), min(times[label])
        ratio = least / min(times["as it is"])
        spent = f"{seconds[label]:10.1f} s" if label in seconds else ""
        print(
            f"{label:12} {nodes:6} {1e3 * median:10.2f} {1e3 * least:9.2f} {ratio:11.2f} {error:8.1e} {spent}",
            flush=True,
        )
    for model in loaded.values():
        model.close()


def save_by_onnxruntime(source: Path, path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def in_turns(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """The seconds of each run, one after the other in each round, in an order that rotates."""
    times: dict[str, list[float]] = {label: [] for label in runs}
    order = list(runs)
    for _ in range(rounds):
        order = [*order[1:], order[0]]
        for label in order:
            started = time.perf_counter()
            runs[label]()
            times[label].append(time.perf_counter() - started)
    return times


SIZE, WIDTH, HEADS = 256, 384, 12
NUM_LAYERS = 6
Chain = Callable[[str, str, str], Sequence[NodeProto]]


def measure_forms(rounds: int) -> None:
    """Print how long a chain of layers takes with a recovered operator, divided by the time with its parts."""
    runtimes = {
        "onnxruntime fp32": by_onnxruntime,
        "openvino fp32": lambda model: by_openvino(model, "f32"),
        "openvino bf16": lambda model: by_openvino(model, "bf16"),
    }
    print(f"{'':16} {'operator set':>12} " + " ".join(f"{each:>16}" for each in runtimes))
    for name, (opset, parts, whole) in FORMS.items():
        ratios: list[str] = []
        for load in runtimes.values():
            times = in_turns({"parts": load(chain(parts, opset)), "whole": load(chain(whole, opset))}, rounds)
            ratios.append(f"{min(times['whole']) / min(times['parts']):16.2f}")
        print(f"{name:16} {opset:12} {' '.join(ratios)}", flush=True)


def by_onnxruntime(model: ModelProto) -> Callable[[], object]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": X})


def by_openvino(model: ModelProto, precision: str) -> Callable[[], object]:
    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(core.read_model(model.SerializeToString()), "CPU", settings).create_infer_request()
    return lambda: request.infer({"x": X})


X = np.random.default_rng(1).standard_normal((1, SIZE, WIDTH)).astype(np.float32)
_ANGLES = np.random.default_rng(2).random((SIZE, WIDTH // HEADS // 2))
_COS, _SIN = np.cos(_ANGLES).astype(np.float32), np.sin(_ANGLES).astype(np.float32)
CONSTANTS: Mapping[str, Any] = {
    **{
        name: np.float32(value)
        for name, value in (("half", 0.5), ("one", 1), ("two", 2), ("root", 2**0.5), ("eps", 1e-5))
    },
    **{name: np.float32(value) for name, value in (("three", 3), ("zero", 0), ("six", 6))},
    "scale": np.float32((WIDTH // HEADS) ** -0.5),
    "gain": np.ones(WIDTH, np.float32),
    "shift": np.zeros(WIDTH, np.float32),
    "heads": np.array([0, 0, HEADS, WIDTH // HEADS]),
    "merged": np.array([0, 0, WIDTH]),
    "last": np.array([-1]),
    "first": np.array([0]),
    "middle": np.array([WIDTH // HEADS // 2]),
    "end": np.array([WIDTH // HEADS]),
    "cos": np.concatenate([_COS, _COS], -1)[None, None],
    "sin": np.concatenate([_SIN, _SIN], -1)[None, None],
    "cos_half": _COS[None],
    "sin_half": _SIN[None],
}


def chain(layer: Chain, opset: int) -> ModelProto:
    """Layers of a product with a matrix and `layer`, one after the other."""
    rng = np.random.default_rng(0)
    nodes: list[NodeProto] = []
    weights: list[TensorProto] = []
    x = "x"
    for index in range(NUM_LAYERS):
        matrix = (rng.standard_normal((WIDTH, WIDTH)) / WIDTH**0.5).astype(np.float32)
        weights.append(numpy_helper.from_array(matrix, f"w{index}"))
        nodes += [
            helper.make_node("MatMul", [x, f"w{index}"], [f"m{index}"]),
            *layer(f"m{index}", f"y{index}", f"p{index}/"),
        ]
        x = f"y{index}"
    read = {name for node in nodes for name in node.input}
    weights += [numpy_helper.from_array(np.asarray(array), name) for name, array in CONSTANTS.items() if name in read]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, X.shape)
    result = helper.make_tensor_value_info(x, TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "chain", [given], [result], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def layer_of(text: str) -> Chain:
    """Lines such as "a = Mul x half" as nodes, between the values x and y; other names are the layer's own."""

    def make(x: str, y: str, prefix: str) -> Sequence[NodeProto]:
        nodes: list[NodeProto] = []
        for line in text.split(";"):
            result, _, rest = line.strip().partition(" = ")
            op, *words = rest.split()
            attributes: dict[str, Any] = {}
            inputs: list[str] = []
            for word in words:
                key, is_attribute, value = word.partition(":")
                if is_attribute:
                    numbers = [float(each) if "." in each else int(each) for each in value.split(",")]
                    attributes[key] = numbers if len(numbers) > 1 else numbers[0]
                else:
                    inputs.append({"x": x, "y": y}.get(word, word if word in CONSTANTS else prefix + word))
            nodes.append(helper.make_node(op, inputs, [y if result == "y" else prefix + result], **attributes))
        return nodes

    return make


_SPLIT = "h = Reshape x heads; q = Transpose h perm:0,2,1,3; "
_MERGE = "; u = Transpose o perm:0,2,1,3; y = Reshape u merged"
_NORM = "m = ReduceMean x last keepdims:1; z = Sub x m; s = Mul z z; v = ReduceMean s last keepdims:1; e = Add v eps; "
_SCALE = str((WIDTH // HEADS) ** -0.5)
FORMS: Mapping[str, tuple[int, Chain, Chain]] = {
    "layer norm": (
        18,
        layer_of(f"{_NORM} r = Sqrt e; d = Div z r; t = Mul d gain; y = Add t shift"),
        layer_of("y = LayerNormalization x gain shift axis:-1"),
    ),
    "gelu": (
        20,
        layer_of("a = Div x root; b = Erf a; c = Add b one; d = Mul x c; y = Mul d half"),
        layer_of("y = Gelu x"),
    ),
    "hard swish": (
        17,
        layer_of("a = Add x three; b = Clip a zero six; d = Mul x b; y = Div d six"),
        layer_of("y = HardSwish x"),
    ),
    "rms norm": (
        23,
        layer_of(
            "s = Mul x x; v = ReduceMean s last keepdims:1; e = Add v eps; r = Sqrt e; d = Div x r; y = Mul d gain"
        ),
        layer_of("y = RMSNormalization x gain axis:-1"),
    ),
    "rotary": (
        23,
        layer_of(
            _SPLIT + "f = Slice q first middle last; g = Slice q middle end last; n = Neg g; r = Concat n f axis:-1; "
            "a = Mul q cos; b = Mul r sin; o = Add a b" + _MERGE
        ),
        layer_of(_SPLIT + "o = RotaryEmbedding q cos_half sin_half" + _MERGE),
    ),
    "silu": (24, layer_of("a = Sigmoid x; y = Mul x a"), layer_of("y = Swish x")),
    "attention": (
        23,
        layer_of(
            _SPLIT + "k = Transpose h perm:0,2,3,1; s = MatMul q k; t = Mul s scale; w = Softmax t axis:-1; "
            "o = MatMul w q" + _MERGE
        ),
        layer_of(_SPLIT + f"o = Attention q q q scale:{_SCALE}" + _MERGE),
    ),
}
"""For each operator its operator set, its parts, and itself."""


if __name__ == "__main__":
    main()
