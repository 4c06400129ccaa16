"""Cases that `collect` kept, raised to ONNX and computed again: what ONNX Runtime makes of them is what Apple made."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from support.compared import difference
from support.raised import computed
from triune.coreai.program import load_program
from triune.coreai.raising import new_state, raise_function


def case_name(folder: Path) -> str:
    """The test, and which of its calls: "ops/test_ops.py::test_abs[x0-True] 0"."""
    about = json.loads((folder / "case.json").read_text())
    return f"{about['test'].removeprefix('tests/')} {about['call']}"


def family(case: str) -> str:
    """Apple's file: "ops/test_ops.py"; ours has no place in Apple's checkout."""
    return case.split("::", 1)[0] or "torch_models.py"


def folders(root: Path) -> Iterator[Path]:
    """The cases under a folder."""
    yield from (path.parent for path in sorted(root.rglob("case.json")))


def failure(folder: Path) -> str:
    """What is wrong with a raised case, or nothing. For a process of its own."""
    about = json.loads((folder / "case.json").read_text())
    arrays = dict(_arrays(folder, about["dtypes"]))
    try:
        # Apple's library has read these files before, so no process of its own need read them first.
        model = raise_function(load_program(folder / "model.aimodel"), about["function"])
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    inputs = {name.split("/", 1)[1]: array for name, array in arrays.items() if name.startswith(("input/", "state/"))}
    try:
        actual = computed(model, inputs)
    except Exception as error:
        return f"does not run: {error}"
    for name, expected in arrays.items():
        role, _, own = name.partition("/")
        if role in ("output", "next"):
            called = new_state(own) if role == "next" else own if own in actual else f"{own}/output"
            wrong = difference(actual[called], _carried(expected))
            if wrong:
                return f"wrong: '{own}': {wrong}"
    return ""


def _arrays(folder: Path, dtypes: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    with np.load(folder / "arrays.npz") as file:
        for name, word in dtypes.items():
            array = file[name]
            dtype = np.dtype(getattr(ml_dtypes, word)) if hasattr(ml_dtypes, word) else np.dtype(word)
            array = array if array.dtype == dtype else array.view(dtype)
            yield name, _pairs(array) if array.dtype.kind == "c" else array


def _pairs(array: Any) -> Any:
    return np.stack([array.real, array.imag], axis=-1)


def _carried(array: Any) -> Any:
    """In the type that carries it in a graph."""
    name = array.dtype.name
    if name.startswith(("int2", "int4")):
        return array.astype(np.int8)
    if name.startswith(("uint1", "uint2", "uint3", "uint4", "uint6")):
        return array.astype(np.uint8)
    return array.astype(np.float32) if name.startswith(("float8", "float4")) else array
