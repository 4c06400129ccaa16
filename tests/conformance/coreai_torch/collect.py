"""What Apple's interpreter computes in the tests of `coreai-torch`, kept to be computed again: a plugin of pytest.

The tests run unmodified, in an environment of their own that has torch and `coreai-torch`; from a checkout of Apple's:

    CASES=/tmp/cases PYTHONPATH=<this folder> python -m pytest -p collect tests/ops tests/composite_ops ...

Each call of a function becomes a folder in $CASES: `model.aimodel`, `case.json` (test, function, types), `arrays.npz`
(`input/NAME`, `state/NAME` before the call, `output/NAME`, `next/NAME` after it).
"""

import functools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coreai.authoring import AIProgram
from coreai.runtime import AIModel, NDArray
from coreai.runtime._inference_function import InferenceFunction

CASES = Path(os.environ["CASES"])
_WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32}


class _Now:
    """The test that runs, the asset that it saved last, and how many calls it made."""

    test = ""
    asset: Path | None = None
    num_calls = 0


@pytest.fixture(autouse=True)
def _remember(request: pytest.FixtureRequest) -> None:
    _Now.test, _Now.asset, _Now.num_calls = request.node.nodeid, None, 0


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`PART=2/5` runs the tests number 2, 7, 12 and so on.

    Composites are skipped off macOS because some of their tests compare with MLX; those of conversion do not.
    """
    first, _, every = os.environ.get("PART", "0/1").partition("/")
    items[:] = items[int(first) :: int(every)]
    for item in items:
        if "Conversion" in item.nodeid:
            item.own_markers = [mark for mark in item.own_markers if "MLX" not in mark.kwargs.get("reason", "")]


def _array(value: Any) -> Any:
    return np.array(value.numpy())


def _keep(function: Any, before: dict[str, Any], outputs: dict[str, Any], state: dict[str, Any]) -> None:
    if _Now.asset is None or not all(isinstance(each, NDArray) for each in outputs.values()):
        return
    arrays = before | {f"output/{name}": _array(each) for name, each in outputs.items()}
    arrays |= {f"next/{name}": _array(each) for name, each in state.items()}
    folder = CASES / f"{len(list(CASES.iterdir())):05}"
    shutil.copytree(_Now.asset, folder / "model.aimodel")
    # Numpy's files do not know the types of ml_dtypes.
    plain = {
        name: each if each.dtype.kind in "biufc" else each.view(_WORDS[each.dtype.itemsize])
        for name, each in arrays.items()
    }
    np.savez(folder / "arrays.npz", **plain)
    about = {
        "test": _Now.test,
        "call": _Now.num_calls,
        "function": getattr(function, "_called", "main"),
        "dtypes": {name: each.dtype.name for name, each in arrays.items()},
    }
    (folder / "case.json").write_text(json.dumps(about, indent=1))
    _Now.num_calls += 1


def _patch() -> None:
    save, load, call = AIProgram.save_asset, AIModel.load_function, InferenceFunction.__call__

    @functools.wraps(save)
    def save_asset(self: Any, path: Path, *args: Any, **named: Any) -> Any:
        _Now.asset = Path(path)
        return save(self, path, *args, **named)

    @functools.wraps(load)
    def load_function(self: Any, function_name: str, *args: Any, **named: Any) -> Any:
        function = load(self, function_name, *args, **named)
        function._called = function_name
        return function

    @functools.wraps(call)
    async def called(self: Any, inputs: Any = None, state: Any = None) -> Any:
        given = {f"input/{name}": _array(each) for name, each in (inputs or {}).items() if isinstance(each, NDArray)}
        given |= {f"state/{name}": _array(each) for name, each in (state or {}).items()}
        outputs = await call(self, inputs, state)
        _keep(self, given, outputs, state or {})
        return outputs

    if not hasattr(AIProgram, "optimize"):
        # From 1.0.0b3 on programs are optimized as they are built, and the tests of before ask for it.
        AIProgram.optimize = lambda self: None
    AIProgram.save_asset = save_asset
    AIModel.load_function = load_function
    InferenceFunction.__call__ = called


CASES.mkdir(parents=True, exist_ok=True)
_patch()
