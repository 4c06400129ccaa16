"""ONNX's node tests with sizes, types, attributes and constants changed: converted, or refused in Triune's words."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from onnx import ModelProto

from support.apple_interpreter import Apart
from support.converted_cases import deciding_inputs
from support.mutated import mutated
from support.onnx_cases import Case, load_cases
from triune.core.errors import InternalError, TriuneError, UnsupportedError
from triune.coreai.lowering import LowerOptions as CoreAiOptions
from triune.coreai.lowering import lower as lower_to_core_ai
from triune.coreml.lowering import LowerOptions as CoreMlOptions
from triune.coreml.lowering import lower as lower_to_core_ml

FORMS: dict[str, tuple[Callable[..., Any], Any, str]] = {
    "Core ML": (lower_to_core_ml, CoreMlOptions, "m.mlpackage"),
    "Core AI": (lower_to_core_ai, CoreAiOptions, "m.aimodel"),
}


@dataclass(frozen=True)
class Changed:
    """A case with what was changed, and what its deciding inputs can be bound to."""

    title: str
    model: ModelProto
    bound: dict[str, Any]


def changed(case: Case, seed: int) -> Changed:
    model, changes = mutated(case.model, f"{case.name}:{seed}")
    inputs = {value.name for value in model.graph.input}
    bound = {name: array for name, array in deciding_inputs(case).items() if name in inputs}
    return Changed(f"{case.name} with {changes}", model, bound)


def failures(argument: tuple[Sequence[Changed], Path]) -> list[str]:
    """Whatever is no error that Triune raises on purpose."""
    cases, folder = argument
    logging.disable(logging.CRITICAL)
    try:
        found = [(form, case.title, _failure(case, form, folder)) for case in cases for form in FORMS]
    finally:
        logging.disable(logging.NOTSET)
    return [f"{form}: {title}: {failure}" for form, title, failure in found if failure]


def _failure(case: Changed, form: str, folder: Path) -> str:
    lower, options, file = FORMS[form]
    try:
        try:
            lower(case.model, folder / file)
        except UnsupportedError:
            lower(case.model, folder / file, options(constants=case.bound))
    except InternalError as error:
        return str(error)
    except TriuneError:
        return ""
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(3600)
def test_what_cannot_be_converted_is_refused_in_plain_words(stride: int, tmp_path: Path) -> None:
    cases = [case for case in load_cases() if case.is_eligible][:: stride * 20 if stride > 1 else 1]
    assert len(cases) > 5
    if stride > 1:
        # Another process would import all libraries again, which takes longer than the sample.
        assert failures(([changed(case, 0) for case in cases], tmp_path)) == []
        return
    # Apart, for what a library does not survive.
    apart = Apart(failures)
    for seed in range(3):
        assert apart(([changed(case, seed) for case in cases], tmp_path)) == []
