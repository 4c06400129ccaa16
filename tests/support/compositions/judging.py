"""Converts a program, computes it, and judges the result: right, refused with a reason, or wrong."""

import functools
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from support.apple_interpreter import interpret
from support.compositions.bounds import FP16, FP32, Oracle, differences
from support.compositions.generate import Program, program
from triune import coreai
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreai.lowering import LowerOptions as CoreAiOptions
from triune.coreai.lowering import lower as lower_to_core_ai
from triune.coreml.interpreter import Interpreter
from triune.coreml.lowering import LowerOptions, lower
from triune.coreml.onnx_executor import OnnxExecutor
from triune.coreml.package import read_package
from triune.graph.conversion.options import Precision
from triune.graph.passes.narrow_values import narrow_array

Answer = Callable[[Mapping[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True)
class Verdict:
    """The result of converting and computing a program.

    Attributes:
        kind: right, refused, wrong or broken (an error that no user should see).
        text: the reason of the refusal, or which output is wrong and by how much.
    """

    kind: str
    text: str = ""


def judge(seed: int, form: str, precision: str) -> Verdict:
    """Convert the program of this seed to `mlpackage` or `aimodel`, in `fp32` or `fp16`, and compute it on its
    inputs.
    """
    asked = program(seed)
    oracle = Oracle(asked.model, FP16 if precision == "fp16" else FP32)
    with tempfile.TemporaryDirectory() as folder:
        try:
            answers = _FORMS[form](asked, Path(folder), Precision(precision))
        except (UnsupportedError, InvalidArgumentError) as error:
            return Verdict("refused", str(error))
        except Exception as error:
            return Verdict("broken", f"{type(error).__name__}: {error}")
        for kind, feed in asked.feeds.items():
            if oracle.why_unjudged(feed):
                continue
            for name, answer in answers.items():
                try:
                    found = answer(feed)
                except Exception as error:
                    return Verdict("broken", f"{name} on {kind} inputs: {type(error).__name__}: {error}")
                if text := complaint(oracle, feed, found):
                    return Verdict("wrong", f"{name} on {kind} inputs: {text}")
    return Verdict("right")


def complaint(oracle: Oracle, feed: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Describe what is wrong with the answers `found`; empty if rounding explains the differences."""
    floor = oracle.floor
    for name, right in oracle.answers(feed).items():
        actual = np.asarray(found[name])
        if (actual.shape or (1,)) != (right.shape or (1,)):
            return f"'{name}' has shape {actual.shape}, not {right.shape}"
        actual = actual.reshape(right.shape)
        if not differences(right, actual, floor).any():
            continue
        for runs in (10, 100):
            allowed, free = oracle.allowed(feed, runs)[name]
            bad = differences(right, actual, floor) & ~free
            with np.errstate(invalid="ignore"):
                error = np.abs(right.astype(np.float64) - actual.astype(np.float64))
                bad &= ~(error <= allowed)
            if not bad.any():
                break
        else:
            place = tuple(int(each) for each in np.argwhere(bad)[0]) if right.ndim else ()
            return f"'{name}' at {place} is {actual[place]}, not {right[place]}; {int(bad.sum())} of {bad.size} differ"
    return ""


def _core_ml(asked: Program, folder: Path, precision: Precision) -> dict[str, Answer]:
    lowered = lower(asked.model, folder / "m.mlpackage", LowerOptions(precision=precision))
    package = read_package(lowered.path)

    def run(executor: Any, feed: Mapping[str, Any]) -> dict[str, Any]:
        given = {}
        for name, array in feed.items():
            narrow = narrow_array(name, np.asarray(array))
            given[lowered.inputs[name]] = narrow.reshape(1) if narrow.ndim == 0 else narrow
        results, _ = executor.run(given, {})
        return {name: results[other] for name, other in lowered.outputs.items()}

    return {
        "Core ML in ONNX Runtime": functools.partial(run, OnnxExecutor(package)),
        "Core ML in numpy": functools.partial(run, Interpreter(package)),
    }


def _core_ai(asked: Program, folder: Path, precision: Precision) -> dict[str, Answer]:
    path = folder / "m.aimodel"
    lower_to_core_ai(asked.model, path, CoreAiOptions(precision=precision))
    raised = coreai.load(path, executor="onnxruntime")

    def narrowed(feed: Mapping[str, Any]) -> dict[str, Any]:
        known = {spec.name for spec in raised.interface.inputs}
        return {name: narrow_array(name, np.asarray(array)) for name, array in feed.items() if name in known}

    return {
        "Core AI in Apple's interpreter": lambda feed: interpret(path, narrowed(feed)),
        "Core AI raised": lambda feed: raised.predict(narrowed(feed)),
    }


_FORMS = {"mlpackage": _core_ml, "aimodel": _core_ai}
