"""Two witnesses: what ONNX Runtime computes of a raised program is what Apple's interpreter computes of the program.

Each operation is tried with the sizes known, and where it can be with none known.
"""

from pathlib import Path
from typing import Any

import pytest

from support.apple_interpreter import Apart, interpret, raised
from support.compared import difference
from support.coreai_programs import save
from support.coreai_samples import SAMPLES
from support.raised import computed

_CASES = [
    pytest.param(family, name, is_dynamic, id=f"{family}-{name}-{'dynamic' if is_dynamic else 'static'}")
    for family, samples in SAMPLES.items()
    for name, sample in samples.items()
    for is_dynamic in ([False] if sample.is_static else [False, True])
]


def _interpreted(argument: Any) -> Any:
    path, inputs, states = argument
    return interpret(path, inputs, states=states)


_apple = Apart(_interpreted)


@pytest.mark.sampled(7)
@pytest.mark.parametrize(("family", "name", "is_dynamic"), _CASES)
def test_raised_programs_compute_the_same(family: str, name: str, is_dynamic: bool, tmp_path: Path) -> None:
    sample = SAMPLES[family][name]
    path = save(sample, tmp_path / "case.aimodel", is_dynamic=is_dynamic)
    expected = _apple((path, dict(sample.inputs), dict(sample.states)))
    # Another process has read it just now, and lives.
    actual = computed(raised(path), {**sample.inputs, **sample.states})
    wrong = {output: difference(actual[output], right) for output, right in expected.items()}
    assert {output: why for output, why in wrong.items() if why} == {}
    assert actual.keys() == expected.keys()
