"""Raised programs of the kinds that `coreai-torch` writes compute what Apple's interpreter computes.

`coreai_torch/run.py` runs Apple's own tests, which takes torch and hours; $COREAI_TORCH_CASES is a folder that it
filled. Without one, a fixed sample of small models is built with the dialect.
"""

import os
from pathlib import Path
from typing import Any

import pytest

from conformance.coreai_torch.judge import folders
from conformance.coreai_torch.models import MODELS, add_composites
from conformance.coreai_torch.run import LEDGER, judged
from support.apple_interpreter import Apart, interpret, raised
from support.compared import difference
from support.coreai_programs import save
from support.raised import computed


@pytest.mark.timeout(7200)
def test_apples_cases_compute_the_same(stride: int) -> None:
    root = os.environ.get("COREAI_TORCH_CASES")
    if root is None:
        pytest.skip("no cases of coreai-torch: COREAI_TORCH_CASES is a folder that coreai_torch/run.py fills")
    places = list(folders(Path(root)))[::stride]
    assert places, f"{root} holds no cases"
    LEDGER.judge_all(judged(places).items())


def _interpreted(argument: Any) -> Any:
    path, inputs, states = argument
    return interpret(path, inputs, states=states)


_apple = Apart(_interpreted)


@pytest.mark.parametrize("is_dynamic", [False, True])
@pytest.mark.parametrize("name", list(MODELS))
def test_models_compute_the_same(name: str, is_dynamic: bool, tmp_path: Path) -> None:
    model = MODELS[name]
    if is_dynamic and model.is_static:
        pytest.skip("its sizes are known")
    path = save(model, tmp_path / "model.aimodel", is_dynamic=is_dynamic, around=add_composites)
    expected = _apple((path, dict(model.inputs), dict(model.states)))
    actual = computed(raised(path), {**model.inputs, **model.states})
    assert {output: difference(actual[output], right) for output, right in expected.items()} == dict.fromkeys(
        expected, ""
    )
