"""What the benchmarks of converted models share.

The zoo's models with their inputs, their source in ONNX Runtime, timing two things in turn, and the command line.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from servers import heading

_RNG = np.random.default_rng(0)
_TOKENS = (1, 128)
MODELS: Mapping[str, tuple[Mapping[str, Any], tuple[str, ...], Mapping[str, Any]]] = {
    "minilm": (
        {
            "input_ids": _RNG.integers(1000, 20000, _TOKENS),
            "attention_mask": np.ones(_TOKENS, np.int64),
            "token_type_ids": np.zeros(_TOKENS, np.int64),
        },
        tuple(f"{name}=1..8,1..256" for name in ("input_ids", "attention_mask", "token_type_ids")),
        {},
    ),
    "efficientnet_lite0": (
        {"image": _RNG.standard_normal((1, 3, 224, 224), np.float32)},
        ("image=1..8,3,224,224",),
        {},
    ),
    "silero_vad": (
        {
            "input": _RNG.standard_normal((1, 576), np.float32) * np.float32(0.1),
            "state": np.zeros((2, 1, 128), np.float32),
        },
        ("input=1,576", "state=2,1,128"),
        {"sr": np.array(16000)},
    ),
    "magika": ({"bytes": _RNG.integers(0, 257, (1, 2048)).astype(np.int32)}, ("bytes=1..8,2048",), {}),
    "rapidocr_rec": (
        {"x": _RNG.random((1, 3, 48, 320), np.float32) * 2 - 1},
        ("x=1,3,48,32..640",),
        {},
    ),
}
"""Inputs, shapes as the command line takes them, and constants."""


def source_of(path: Path, inputs: Mapping[str, Any], constants: Mapping[str, Any]) -> tuple[Callable[[], Any], Any]:
    """A model in ONNX Runtime: a call with these inputs, and its outputs by name."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    ranks = {each.name: len(each.shape) for each in session.get_inputs()}
    feeds = {**inputs, **{key: np.reshape(value, [1] * ranks[key]) for key, value in constants.items()}}
    names = [each.name for each in session.get_outputs()]
    return lambda: session.run(None, feeds), dict(zip(names, session.run(None, feeds), strict=True))


def error_of(actual: Any, expected: Any) -> float:
    return float(np.max(np.abs(np.asarray(actual, np.float64).reshape(expected.shape) - expected)))


def in_turn(
    first: Callable[[], Any], second: Callable[[], Any], rounds: int, seconds: float
) -> tuple[list[float], tuple[float, float]]:
    """Call A B A B: the ratio of the medians of each round, and the medians of those, in seconds."""
    pairs = [(_median(first, seconds), _median(second, seconds)) for _ in range(rounds)]
    times = statistics.median(each[0] for each in pairs), statistics.median(each[1] for each in pairs)
    return [each[0] / each[1] for each in pairs], times


def _median(call: Callable[[], Any], seconds: float) -> float:
    times, until = [], time.perf_counter() + seconds
    while time.perf_counter() < until or len(times) < 3:
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main(doc: str | None, title: str, measure: Callable[[str, Path, int, float], None]) -> None:
    """Measure each of the models that the command line names."""
    from triune.zoo.packages import PackageCache
    from triune.zoo.repository import build_repository

    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    given = parser.parse_args()
    print(heading(title))
    with tempfile.TemporaryDirectory() as folder:
        build_repository(Path(folder), cache=PackageCache(), models=given.models)
        for name in given.models:
            measure(name, Path(folder), given.rounds, given.seconds)
