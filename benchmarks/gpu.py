"""Models on an NVIDIA GPU: Triune through MLX, torch.compile, and ONNX Runtime's CUDA provider where it is, in turn.

Usage: gpu.py [--models minilm bert_base efficientnet_lite0 resnet50] [--precision bf16] [--batches 1 8 32]
              [--rounds 3] [--seconds 1] [--eager] [--also NAME=VALUE ...] [--joules 0]

The models have random weights in the shapes of the real ones, which changes no rate: BERT as transformers builds it,
with 128 tokens a row, ResNet-50 as torchvision does, EfficientNet-Lite0 as timm does. Torch exports each to ONNX, which
Triune and ONNX Runtime read. All are given numpy arrays and give numpy arrays, so that a rate holds the copies to the
GPU and back. fp32 is fp32: TF32 is off everywhere. Each peer of each model has a process, of which one computes at a
time; they are prepared side by side. --also adds a Triune with a variable of the environment, which MLX reads when it
starts: MLX_USE_CUDA_GRAPHS=0 or 1. With --joules S each computes batches of the largest size for S seconds more, and
the rows of a joule by NVML are printed.

Printed are medians of the rounds in rows a second, and the largest error against ONNX Runtime's fp32 on the CPU, as a
share of the largest output. With --eager torch does not compile.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from processes import Joules, Peer

SEQUENCE = 128
BERTS = {
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "bert_base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
}

Array = NDArray[Any]
Inputs = dict[str, Array]
Run = Callable[[Inputs], Array]


def _bert(sizes: dict[str, int]) -> Any:
    import torch
    import transformers

    class Bert(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            config = transformers.BertConfig(**sizes, attn_implementation="sdpa")
            self.inner = transformers.BertModel(config, add_pooling_layer=False)

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            # The mask in the form that the encoder adds to its scores: transformers' own way to it cannot be exported.
            mask = (1.0 - attention_mask[:, None, None, :].to(self.inner.dtype)) * -10000.0
            x = self.inner.embeddings(input_ids)
            return self.inner.encoder(x, attention_mask=mask).last_hidden_state

    return Bert().eval()


def module_of(model: str) -> Any:
    import torch

    torch.manual_seed(0)
    if model in BERTS:
        return _bert(BERTS[model])
    if model == "resnet50":
        import torchvision

        return torchvision.models.resnet50(weights=None).eval()
    import timm

    return timm.create_model("efficientnet_lite0", pretrained=False).eval()


def inputs_of(model: str, rows: int) -> Inputs:
    rng = np.random.default_rng(rows)
    if model in BERTS:
        ids = rng.integers(1000, 30000, (rows, SEQUENCE), dtype=np.int64)
        return {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    return {"image": rng.standard_normal((rows, 3, 224, 224), dtype=np.float32)}


def export(module: Any, model: str, path: Path) -> None:
    """Write the module as ONNX with a free batch."""
    import torch

    inputs = inputs_of(model, 2)
    torch.onnx.export(
        module,
        tuple(torch.from_numpy(array) for array in inputs.values()),
        str(path),
        input_names=list(inputs),
        output_names=["output"],
        dynamic_axes={name: {0: "batch"} for name in [*inputs, "output"]},
        opset_version=17,
        dynamo=False,
    )


def of_torch(model: str, precision: str, path: Path, *, compiles: bool) -> Run:
    """The model in torch; it is exported first."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    module = module_of(model)
    export(module, model, path)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    placed: Any = module.to(device, dtype)
    if compiles:
        placed = torch.compile(placed, dynamic=False)

    def run(inputs: Inputs) -> Array:
        with torch.inference_mode():
            arrays = [torch.from_numpy(array).to(device, non_blocking=True) for array in inputs.values()]
            found = placed(*(array.to(dtype) if array.is_floating_point() else array for array in arrays))
            return found.float().cpu().numpy()

    return run


def of_triune(path: Path, precision: str) -> Run:
    import triune

    options = {} if precision == "fp32" else {"mlx.precision": precision}
    loaded = triune.load(path, units=["gpu"], options=options)
    return lambda inputs: np.asarray(loaded.run(inputs)["output"])


def of_onnxruntime(path: Path, provider: str) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=[provider])
    return lambda inputs: np.asarray(session.run(["output"], inputs)[0])


def serve(name: str, model: str, precision: str, path: Path) -> Callable[..., Any]:
    """In a peer's process, answers "first" (a run: its result and seconds) and "rate" (for seconds: rows a second)."""
    if name.startswith("torch"):
        run = of_torch(model, precision, path, compiles=name == "torch.compile")
    elif name.startswith("onnxruntime"):
        run = of_onnxruntime(path, "CUDAExecutionProvider" if name.endswith("cuda") else "CPUExecutionProvider")
    else:
        run = of_triune(path, precision)

    def answer(what: str, rows: int = 1, seconds: float = 0) -> Any:
        if what == "made":
            return None
        inputs = inputs_of(model, rows)
        if what == "rate":
            return rate_of(run, inputs, seconds)
        begin = time.perf_counter()
        found = run(inputs)
        first = time.perf_counter() - begin
        for _ in range(3 if "CPU" not in name else 0):
            run(inputs)
        return found, first

    return answer


def rate_of(run: Run, inputs: Inputs, seconds: float) -> float:
    """Rows a second."""
    rows, num, begin = len(next(iter(inputs.values()))), 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        run(inputs)
        num += rows
    return num / (time.perf_counter() - begin)


def prepared(models: list[str], folder: Path, options: argparse.Namespace) -> dict[str, dict[str, Peer]]:
    """The peers of each model, all started side by side: torch first, which writes the files."""
    torch_name = "torch" if options.eager else "torch.compile"
    names: dict[str, dict[str, str]] = {"triune": {}}
    names |= {f"triune {each}": dict([each.split("=", 1)]) for each in options.also}
    names |= {"onnxruntime CPU": {"CUDA_VISIBLE_DEVICES": ""}}
    peers: dict[str, dict[str, Peer]] = {}
    for model in models:
        path = folder / f"{model}.onnx"
        peers[model] = {torch_name: Peer(serve, torch_name, model, options.precision, path, environment={})}
        peers[model][torch_name].begin("made")
    for model in models:
        peers[model][torch_name].end()
        for name, environment in names.items():
            path = folder / f"{model}.onnx"
            peers[model][name] = Peer(serve, name, model, options.precision, path, environment=environment)
    return peers


def measure(model: str, peers: dict[str, Peer], rows: int, firsts: dict[str, Any], options: argparse.Namespace) -> None:
    expected = firsts["onnxruntime CPU"][0]
    runs = {name: peer for name, peer in peers.items() if name != "onnxruntime CPU"}
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.rounds):
        for name, run in runs.items():
            rates[name].append(run("rate", rows, options.seconds))
    best = max(statistics.median(each) for name, each in rates.items() if not name.startswith("triune"))
    for name, each in rates.items():
        rate, (found, first) = statistics.median(each), firsts[name]
        error = float(np.abs(found - expected).max() / np.abs(expected).max())
        print(
            f"{model:20}batch {rows:<4}{name:32}{rate:10.1f} ({min(each):.0f} to {max(each):.0f}) rows/s  "
            f"{rate / best:5.2f} of torch  error {error:.1e}  first run {first:.1f} s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["minilm", "bert_base", "efficientnet_lite0", "resnet50"])
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--also", nargs="*", default=[])
    parser.add_argument("--joules", type=float, default=0.0)
    options = parser.parse_args()
    meter, began = Joules(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        all_peers = prepared(options.models, Path(folder), options)
        everyone = [(model, name, peer) for model, peers in all_peers.items() for name, peer in peers.items()]
        firsts: dict[tuple[str, int, str], Any] = {}
        for rows in options.batches:
            for _, _, peer in everyone:
                peer.begin("first", rows)
            for model, name, peer in everyone:
                firsts[model, rows, name] = peer.end()
        print(f"prepared in {time.perf_counter() - began:.0f} s", flush=True)
        for model, peers in all_peers.items():
            for rows in options.batches:
                measure(model, peers, rows, {name: firsts[model, rows, name] for name in peers}, options)
            for name, peer in peers.items() if options.joules else ():
                if name != "onnxruntime CPU":
                    rate = peer("rate", max(options.batches), 0.5)
                    done, watts = meter.per_joule(
                        lambda peer=peer: options.joules * peer("rate", max(options.batches), options.joules)
                    )
                    print(f"{model:20}{name:32}{rate:8.0f} rows/s {done:8.1f} rows/J at {watts:.0f} W", flush=True)
        for _, _, peer in everyone:
            peer.close()


if __name__ == "__main__":
    main()
