"""The limit: a runtime called in a loop, with no server around it.

Usage: bare.py MODEL.onnx NAME SECONDS     (NAME: minilm or efficientnet_lite0)
Prints JSON: rows a second by runtime, unit and batch size.
"""

import functools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from triune.core.units import Unit
from triune.hardware.cpu import read_cpu
from triune.hardware.units import detect_units
from triune.runtimes import available

SEQUENCE = 128
OUTPUTS = {"minilm": "sentence_embedding", "efficientnet_lite0": "probabilities"}


def inputs_of(model: str, rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A request: MiniLM reads 128 tokens, EfficientNet one image."""
    rng = np.random.default_rng(seed)
    if model == "minilm":
        ids = rng.integers(1000, 30000, (rows, SEQUENCE), dtype=np.int64)
        return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    return {"image": rng.standard_normal((rows, 3, 224, 224), dtype=np.float32)}


def rate_of(run: Callable[[], object], rows: int, seconds: float) -> float:
    """Rows a second of `run` in a loop."""
    run()
    count, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        run()
        count += rows
    return count / (time.perf_counter() - begin)


def main() -> None:
    path, model, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    cpu = read_cpu()
    runtimes = available(detect_units(cpu))
    rates: dict[str, float] = {}
    for name, unit in (("onnxruntime", Unit.CPU), ("openvino", Unit.CPU), ("openvino", Unit.AMX)):
        if name not in runtimes or unit not in runtimes[name].units():
            continue
        executable = runtimes[name].load(path, unit=unit, num_threads=cpu.num_cores, options={})
        for rows in (1, 8, 32):
            run = functools.partial(executable.run, inputs_of(model, rows), [OUTPUTS[model]])
            rates[f"{name} {unit.value} {rows}"] = rate_of(run, rows, seconds)
        executable.close()
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
