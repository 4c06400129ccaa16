"""Models on an NVIDIA GPU: Triune through MLX, torch.compile, and ONNX Runtime's CUDA provider where it is, in turn.

Usage: gpu.py [--models minilm bert_base efficientnet_lite0 resnet50] [--precisions bf16 fp32] [--batches 1 8 32]
              [--rounds 3] [--seconds 1] [--eager]

The models have random weights in the shapes of the real ones, which changes no rate: BERT as transformers builds it,
with 128 tokens a row, ResNet-50 as torchvision does, EfficientNet-Lite0 as timm does. Torch exports each to ONNX, which
Triune and ONNX Runtime read. All are given numpy arrays and give numpy arrays, so that a rate holds the copies to the
GPU and back. fp32 is fp32: TF32 is off everywhere. Printed are medians of the rounds in rows a second, and the largest
error against ONNX Runtime's fp32 on the CPU, as a share of the largest output. With --eager torch does not compile.
"""

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

import triune
from triune.core.datatypes import Array

SEQUENCE = 128
BERTS = {
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "bert_base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
}

Inputs = dict[str, Array]
Run = Callable[[Inputs], Array]


class _Bert(torch.nn.Module):
    def __init__(self, sizes: dict[str, int]) -> None:
        import transformers

        super().__init__()
        config = transformers.BertConfig(**sizes, attn_implementation="sdpa")
        self.inner = transformers.BertModel(config, add_pooling_layer=False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        # The mask in the form that the encoder adds to its scores: transformers' own way to it cannot be exported.
        mask = (1.0 - attention_mask[:, None, None, :].to(self.inner.dtype)) * -10000.0
        x = self.inner.embeddings(input_ids)
        return self.inner.encoder(x, attention_mask=mask).last_hidden_state


def module_of(model: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if model in BERTS:
        return _Bert(BERTS[model]).eval()
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


def export(module: torch.nn.Module, model: str, path: Path) -> None:
    """Write the module as ONNX with a free batch."""
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


def of_torch(module: torch.nn.Module, precision: str, *, compiles: bool) -> Run:
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]
    placed: Any = copy.deepcopy(module).to("cuda", dtype)
    if compiles:
        placed = torch.compile(placed, dynamic=False)

    def run(inputs: Inputs) -> Array:
        with torch.inference_mode():
            arrays = [torch.from_numpy(array).cuda(non_blocking=True) for array in inputs.values()]
            found = placed(*(array.to(dtype) if array.is_floating_point() else array for array in arrays))
            return found.float().cpu().numpy()

    return run


def of_triune(path: Path, precision: str) -> Run:
    options = {} if precision == "fp32" else {"mlx.precision": precision}
    loaded = triune.load(path, units=["gpu"], options=options)
    return lambda inputs: np.asarray(loaded.run(inputs)["output"])


def of_onnxruntime(path: Path, provider: str) -> Run:
    session = onnxruntime.InferenceSession(str(path), providers=[provider])
    return lambda inputs: np.asarray(session.run(["output"], inputs)[0])


def rate_of(run: Run, inputs: Inputs, seconds: float) -> float:
    """Rows a second."""
    rows, num, begin = len(next(iter(inputs.values()))), 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        run(inputs)
        num += rows
    return num / (time.perf_counter() - begin)


def measure(model: str, precision: str, path: Path, module: torch.nn.Module, arguments: argparse.Namespace) -> None:
    runs = {"triune": of_triune(path, precision)}
    runs["torch" if arguments.eager else "torch.compile"] = of_torch(module, precision, compiles=not arguments.eager)
    if precision == "fp32" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        runs["onnxruntime cuda"] = of_onnxruntime(path, "CUDAExecutionProvider")
    truth = of_onnxruntime(path, "CPUExecutionProvider")
    for rows in arguments.batches:
        inputs = inputs_of(model, rows)
        expected = truth(inputs)
        errors, firsts = dict[str, float](), dict[str, float]()
        for name, run in runs.items():
            begin = time.perf_counter()
            errors[name] = float(np.abs(run(inputs) - expected).max() / np.abs(expected).max())
            firsts[name] = time.perf_counter() - begin
            for _ in range(3):
                run(inputs)
        rates: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(arguments.rounds):
            for name, run in runs.items():
                rates[name].append(rate_of(run, inputs, arguments.seconds))
        best = max(statistics.median(each) for name, each in rates.items() if name != "triune")
        for name, each in rates.items():
            rate = statistics.median(each)
            print(
                f"{model:20}{precision:6}batch {rows:<4}{name:18}{rate:10.1f} rows/s  {rate / best:5.2f} of the best "
                f"peer  error {errors[name]:.1e}  first run {firsts[name]:.1f} s",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["minilm", "bert_base", "efficientnet_lite0", "resnet50"])
    parser.add_argument("--precisions", nargs="+", default=["bf16", "fp32"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--eager", action="store_true")
    arguments = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    print(f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, {torch.cuda.get_device_name()}")
    with tempfile.TemporaryDirectory() as folder:
        for model in arguments.models:
            path = Path(folder, f"{model}.onnx")
            module = module_of(model)
            export(module, model, path)
            for precision in arguments.precisions:
                measure(model, precision, path, module, arguments)


if __name__ == "__main__":
    main()
