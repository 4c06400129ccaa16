import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime
import pytest
import safetensors.numpy
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from contract.architectures.hugging_face import weight
from triune.engine.weights import Checkpoint, open_checkpoint
from triune.graph.held import HeldModel
from triune.runtimes import missing

HERE = Path(__file__).parent


class Run(Protocol):
    """Computes the outputs of a graph, in the order of the graph."""

    def __call__(self, model: HeldModel, feed: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[Any]]: ...


def _numpy(model: HeldModel, feed: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
    return ReferenceEvaluator(model.whole()).run(None, dict(feed))


def _onnxruntime(model: HeldModel, feed: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
    content = model.whole().SerializeToString()
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, dict(feed))


def _openvino(model: HeldModel, feed: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
    import openvino

    core = openvino.Core()
    read = core.read_model(model.whole().SerializeToString())
    compiled = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(dict(feed))
    return [found[port] for port in compiled.outputs]


def _mlx(model: HeldModel, feed: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
    from triune.metal.function import Function
    from triune.metal.lower import lower

    return Function(lower(model.whole()))(feed, [value.name for value in model.model.graph.output])


RUNS: dict[str, Run] = {"numpy": _numpy, "onnxruntime": _onnxruntime, "openvino": _openvino, "mlx": _mlx}


@pytest.fixture(params=list(RUNS))
def run(request: pytest.FixtureRequest) -> Run:
    """Every runtime that computes graphs without a cache."""
    if reason := missing().get(request.param):
        pytest.skip(reason)
    return RUNS[request.param]


@functools.cache
def answers() -> dict[str, NDArray[np.float32]]:
    """What transformers answers, by "case: output"."""
    with np.load(HERE / "answers.npz") as file:
        return dict(file)


@functools.cache
def models() -> dict[str, Any]:
    """The config and the shapes of the tensors of each case, as transformers has them."""
    return json.loads((HERE / "models.json").read_text())


def checkpoint_of(case: str, folder: Path) -> Checkpoint:
    """The case as a directory in Hugging Face's form."""
    model = models()[case]
    (folder / "config.json").write_text(json.dumps(model["config"]))
    tensors = {name: weight(name, tuple(shape)) for name, shape in model["tensors"].items()}
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    return open_checkpoint(folder)
