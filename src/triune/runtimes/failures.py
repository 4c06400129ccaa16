"""What vendor libraries say when they fail, told once in Triune's words."""

import re

from triune.core.errors import InternalError, InvalidArgumentError, TriuneError

_MAX_CHARACTERS = 600
_SHAPES = re.compile(
    r"shape|dimension|\bdims?\b|\brank|broadcast|mismatch|incompatible|inconsistent|out of (data )?bounds|out of range"
    r"|division by zero",
    re.IGNORECASE,
)
_MEMORY = re.compile(r"allocat|bad_alloc|out of memory", re.IGNORECASE)
# An operator's name is no reason: ConstantOfShape may fail for want of memory.
_OPERATOR = re.compile(r"^.*Status Message:|\[CPU\] \w+ node with name '[^']*'")
_ONNXRUNTIME_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_OPENVINO_TRACE = re.compile(r"^Exception from \S+:\d+:$", re.MULTILINE)
_SOURCE_PLACE = re.compile(r"(?<!\S)/?[\w./-]+\.(?:cc|cpp|h|hpp):\d+:?")


def reason_of(error: Exception) -> str:
    """The error's message in one line, without the vendor's traces and places in its source."""
    text = _ONNXRUNTIME_PREFIX.sub("", str(error))
    text = _SOURCE_PLACE.sub("", _OPENVINO_TRACE.sub("", text))
    text = " ".join(text.split()) or type(error).__name__
    return text if len(text) <= _MAX_CHARACTERS else text[: _MAX_CHARACTERS - 3] + "..."


def run_failure(error: Exception, *, is_refusal: bool = False) -> TriuneError:
    """The error that `Executable.run` raises in place of a vendor's.

    Vendors report a shape that an operator cannot compute with the same exception as a defect, so the words decide.

    Args:
        error: what the vendor library raised.
        is_refusal: the library has said itself that the arguments are to blame.
    """
    reason = reason_of(error)
    is_refusal = is_refusal or (_SHAPES.search(_OPERATOR.sub("", reason)) is not None and not _MEMORY.search(reason))
    if is_refusal:
        return InvalidArgumentError(f"the model cannot compute these inputs: {reason}")
    return InternalError(f"the model failed: {reason}")
