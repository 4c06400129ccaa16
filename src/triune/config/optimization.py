"""A model's optimization level: how far its graph is rewritten before a runtime compiles it."""

from collections.abc import Mapping
from typing import Final

from triune.core.errors import InvalidArgumentError
from triune.graph.optimizing.level import Level

OPTIMIZATION_PARAMETER: Final = "optimization_level"
"""The config parameter for the level, such as "O2". The graph is optimized for each unit, and the result is compared
with the file's graph.
"""


def optimization_of(parameters: Mapping[str, str], suffix: str, *, has_plan: bool) -> Level | None:
    """The optimization level in the config's parameters; None if it has none.

    Args:
        parameters: the config's parameters.
        suffix: the suffix of the model file.
        has_plan: whether a plan divides the model into segments.

    Raises:
        InvalidArgumentError: there is no such level, the model file is not ONNX, or a plan divides the model into
            segments.
    """
    text = parameters.get(OPTIMIZATION_PARAMETER)
    if text is None:
        return None
    known = [level.value for level in Level]
    if text not in known:
        raise InvalidArgumentError(
            f"parameter '{OPTIMIZATION_PARAMETER}' is {text!r:.100}; write one of {', '.join(known)}"
        )
    if suffix != ".onnx":
        kind = suffix or "folder"
        raise InvalidArgumentError(
            f"parameter '{OPTIMIZATION_PARAMETER}' is for .onnx files; the model is a {kind}: leave it out"
        )
    if has_plan:
        raise InvalidArgumentError(
            f"parameter '{OPTIMIZATION_PARAMETER}' is for whole models, and a plan cuts this one: leave out one of them"
        )
    return Level(text)
