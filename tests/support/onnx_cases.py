"""ONNX's own node tests: models of one operator, with inputs and the right outputs."""

import functools
import pickle
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, TypeProto, numpy_helper

from triune.core.cache import cache_folder

DEBIAN = Path("/usr/share/libonnx-testdata/data")
_NUMBERS = frozenset(
    [
        *(TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.BOOL),
        *(TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64),
        *(TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64),
    ]
)


@dataclass(frozen=True)
class Case:
    """A node test. `sets` pairs the inputs, by name, with the outputs in the model's order."""

    name: str
    model: ModelProto
    sets: Sequence[tuple[dict[str, Any], Sequence[Any]]]
    rtol: float
    atol: float

    @property
    def is_eligible(self) -> bool:
        """Whether all inputs and outputs are tensors of plain numbers."""
        return all(_is_number(value.type) for value in (*self.model.graph.input, *self.model.graph.output))

    @property
    def is_random(self) -> bool:
        """Whether the outputs are random, so that they cannot be predicted."""
        random = ("Bernoulli", "RandomUniform", "RandomNormal", "RandomUniformLike", "RandomNormalLike", "Multinomial")
        return (
            any(node.op_type in random for node in self.model.graph.node)
            or any(each in self.name for each in ("bernoulli", "training_dropout_default", "training_dropout_mask"))
            or self.name.endswith("training_dropout")
        )


@functools.cache
def load_cases() -> Sequence[Case]:
    """Load all 1,884 node tests of onnx 1.23.

    ONNX computes the right outputs anew in each process, which takes 15 s, so they are kept in the cache folder.
    """
    kept = cache_folder() / "tests" / f"onnx-{onnx.__version__}-numpy-{np.__version__}.pickle"
    try:
        found = pickle.loads(kept.read_bytes())
    except FileNotFoundError:
        # This is imported here, since the import alone computes all outputs.
        from onnx.backend.test.loader import load_model_tests

        tests = load_model_tests(kind="node")
        found = [(each.name, each.model, each.data_sets, each.rtol, each.atol) for each in tests]
        kept.parent.mkdir(parents=True, exist_ok=True)
        # If several processes write the cache, each writes a file of its own, and the last one replaces the others.
        with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as file:
            file.write(pickle.dumps(found))
        Path(file.name).replace(kept)
    return [
        Case(name, model, [_named(model, *each) for each in sets], rtol, atol)
        for name, model, sets, rtol, atol in found
        if model is not None and sets is not None
    ]


@functools.cache
def load_debian_cases() -> Sequence[Case]:
    """Load the cases of ONNX 1.12 from Debian's package libonnx-testdata. They include older operator sets and whole
    models.
    """
    return [_read_case(path) for path in sorted(DEBIAN.glob("*/*/model.onnx"))]


def _read_case(path: Path) -> Case:
    model = onnx.load(path)
    defaults = {tensor.name for tensor in model.graph.initializer}
    names = [value.name for value in model.graph.input if value.name not in defaults]
    types = {value.name: value.type for value in (*model.graph.input, *model.graph.output)}
    sets: list[tuple[dict[str, Any], Sequence[Any]]] = []
    for folder in sorted(path.parent.glob("test_data_set_*")):
        inputs = [_read_value(folder / f"input_{index}.pb", types[name]) for index, name in enumerate(names)]
        outputs = [
            _read_value(folder / f"output_{index}.pb", value.type) for index, value in enumerate(model.graph.output)
        ]
        sets.append((dict(zip(names, inputs, strict=True)), outputs))
    return Case(f"{path.parts[-3]}/{path.parts[-2]}", model, sets, 1e-3, 1e-7)


def _read_value(path: Path, type_: TypeProto) -> Any:
    if type_.WhichOneof("value") != "tensor_type":
        return None
    return numpy_helper.to_array(TensorProto.FromString(path.read_bytes()))


def _named(model: ModelProto, inputs: Sequence[Any], outputs: Sequence[Any]) -> tuple[dict[str, Any], Sequence[Any]]:
    arrays = [_array(each) for each in inputs]
    return dict(zip([value.name for value in model.graph.input], arrays, strict=False)), [
        _array(each) for each in outputs
    ]


def _array(value: Any) -> Any:
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def _is_number(type_: TypeProto) -> bool:
    return type_.WhichOneof("value") == "tensor_type" and type_.tensor_type.elem_type in _NUMBERS


def difference(actual: Any, expected: Any, *, rtol: float, atol: float) -> str:
    """Describe how an output differs from the right one; empty if it does not."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    if actual.dtype != expected.dtype or actual.shape != expected.shape:
        return f"{actual.dtype}{list(actual.shape)} instead of {expected.dtype}{list(expected.shape)}"
    if expected.dtype.kind not in "fc":
        wrong = int(np.sum(actual != expected))
        return f"{wrong} of {expected.size} elements differ" if wrong else ""
    if np.allclose(actual, expected, rtol=rtol, atol=atol, equal_nan=True):
        return ""
    with np.errstate(all="ignore"):
        error = np.nanmax(np.abs(actual.astype(np.float64) - expected.astype(np.float64)), initial=0)
    return f"differs by up to {error:.3g}"
