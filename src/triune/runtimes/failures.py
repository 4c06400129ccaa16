"""Translate errors of vendor libraries to Triune's errors.

A model is compiled and tried before it is served, and operators have no state. So if an operator fails, the request's
inputs are the cause, and the error is an InvalidArgumentError. (Triton answers INTERNAL, after which clients would send
the same request again.) A lack of memory is a NoMemoryError, unless the request needs more than the machine has.
"""

import os
import re
from collections.abc import Mapping
from typing import Final

from triune.core.datatypes import Array
from triune.core.errors import InternalError, InvalidArgumentError, NoMemoryError, TriuneError, UnitLostError
from triune.core.printable import printable
from triune.core.tensors import format_shape

_MAX_CHARACTERS = 600
_MAX_SHOWN = 8
_MAX_SHOWN_INPUTS = 4
_MAX_SHOWN_CHARACTERS = 32

_SHAPES = re.compile(
    r"shape|dimension|\bdims?\b|\brank|broadcast|mismatch|incompatible|inconsistent|out of (data )?bounds|out of range"
    r"|division by zero|beyond 64 bits",
    re.IGNORECASE,
)
_MEMORY = re.compile(
    r"failed to allocate|unable to allocate|attempting to allocate|bad_alloc|out ?of ?memory|insufficient memory",
    re.IGNORECASE,
)
_NUM_BYTES = re.compile(r"(?:buffer of size |Unable to allocate )([\d.]+)(?: ([KMGTPE])iB)?")
# Matches the error for a buffer above Metal's limit. The limit is fixed, so sending the request again does not help.
_LARGEST_BUFFER = re.compile(r"maximum allowed buffer size of (\d+)")
# Matches error messages of CUDA (after which "the process must be terminated and relaunched", by its documentation) and
# of Metal (MTLCommandBufferError, IOGPU) when a GPU no longer computes for this process.
_LOST = re.compile(
    r"device (?:was |is |has been )?(?:lost|removed)|DeviceRemoved|GPU is lost|no CUDA-capable device"
    r"|busy or unavailable|illegal memory access|unspecified launch failure"
    r"|uncorrectable ECC error|hardware stack error|misaligned address|device-side assert",
    re.IGNORECASE,
)

# Matches the innermost node of ONNX Runtime's message: the error of an If also contains that of a node in its body.
_ONNXRUNTIME_NODE = re.compile(r".*while running (\w+) node\. Name:'(.*)' Status Message: ?", re.DOTALL)
_OPENVINO_NODE = re.compile(
    r".*?(?:\[CPU\] (?P<kind>\w+) node with name '(?P<name>[^']*)'|Node (?P<named>\S+) of type (?P<type>\w+))"
    r"(?P<is_check> Check '.*?' failed at (?:.* with friendly_name '[^']*': |\w+ node with name '[^']*' )?)?",
    re.DOTALL,
)
_ONNXRUNTIME_CODE = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : ")
_OPENVINO_TRACE = re.compile(r"^Exception from \S+:\d+:$", re.MULTILINE)
# Matches the beginning of ONNX Runtime's messages: a path and the signature of a function, or a file and the name of a
# function. After it comes the condition that failed.
_SOURCE_PLACE = re.compile(
    r"(?<!\S)/?[\w./-]+\.(?:cc|cpp|h|hpp):\d+:"
    r"|(?<!\S)/?[\w.-]*/[\w./-]+\.(?:cc|cpp|h|hpp):\d+"
    r"(?: [\w:<>,*&~{} ]+?\([^()]*\)(?:\([^()]*\))?(?: const)?(?: \[with [^\]]*\])?)?"
    r"|(?<!\S)[\w.-]+\.(?:cc|cpp|h|hpp):\d+(?: (?:\w+|operator\(\))(?= \S))?"
)
_CONDITION = re.compile(r"^.{1,200}? was false\. (?=\S)")
# These match the names of generated nodes: those of `graph.checks` (the name is a message), those of `graph.guard`, and
# those that ONNX Runtime gives to nodes without a name.
_CHECKED = re.compile(r".* takes no (?:size of )?0")
_GUARDED = re.compile(r"/guarded/.*")
_MADE_UP = re.compile(r"(?:_token_\d+)?")

_NO_NODES: Final[Mapping[str, str]] = {}

_PLAIN: Final[Mapping[str, str]] = {
    "array is too big; `arr.size * arr.dtype.itemsize` is larger than the maximum possible size.": (
        "a size or a count of bytes is beyond 64 bits"
    ),
    "Integer overflow": "a size or a count of bytes is beyond 64 bits",
    "Calculation for Tensor storage size overflowed": "a size or a count of bytes is beyond 64 bits",
    "CalculateTensorStorageSize Tensor shape.Size() must be >= 0": "a size would be below 0",
    "Tensor shape.Size() must be >= 0": "a size would be below 0",
    "shape.Size() must >=0": "a size would be below 0",
    "stod": "a string is not a number, or is out of range",
    "stoll": "a string is not an integer, or is out of range",
    "stoull": "a string is not an integer, or is out of range",
}
"""A message for users for each message of numpy or ONNX Runtime that only the library's authors understand."""


def reason_of(error: Exception) -> str:
    """The message of an error in one line, without the vendor's stack traces and source locations."""
    return printable(_cut(_plain(str(error)) or type(error).__name__))


def run_failure(
    error: Exception,
    inputs: Mapping[str, Array],
    *,
    is_refusal: bool = False,
    only_nodes: Mapping[str, str] = _NO_NODES,
) -> TriuneError:
    """Translate a vendor's error to the error that `Executable.run` raises.

    Args:
        error: the vendor library's error.
        inputs: the inputs of the run; the message shows the values of small ones.
        is_refusal: whether the library itself reported invalid arguments.
        only_nodes: for each operator that the model has only one node of, the node's name, for errors without a node
            name.
    """
    text = str(error)
    node, words, is_refused = node_of(text, only_nodes)
    reason = _cut(_plain(words).removeprefix(f"{node.partition(' ')[0]}: ") or ("" if node else type(error).__name__))
    reason = _PLAIN.get(reason, reason)
    said = printable(": ".join(filter(None, (node, reason))))
    if _MEMORY.search(reason) or isinstance(error, MemoryError):
        return _memory_failure(text, node, said, inputs)
    if not (is_refusal or is_refused or _SHAPES.search(reason)):
        return InternalError(f"the model failed: {said}")
    said = f"{said.rstrip('.')}{given_values(inputs)}"
    return InvalidArgumentError(f"the model cannot compute these inputs: {said}; send values and shapes that it takes")


def lost_unit(error: Exception) -> UnitLostError | None:
    """Translate a vendor's error that says that a GPU no longer computes for this process; None for any other error.

    Use it only for libraries whose errors contain no text of a request: a request must not be able to make a unit count
    as lost.
    """
    if not _LOST.search(str(error)):
        return None
    return UnitLostError(
        f"the unit computes nothing for this process any more: {reason_of(error)}; restart the server, and look at the "
        "system's log"
    )


def node_of(text: str, only_nodes: Mapping[str, str]) -> tuple[str, str, bool]:
    """Parse the text of an ONNX Runtime error.

    Returns:
        the node that failed (empty if unknown), the text without the part that names the node, and whether the node
        refused its input.
    """
    found = _ONNXRUNTIME_NODE.match(text)
    if found is not None:
        kind, name = found[1], _GUARDED.sub("", found[2])
        if _CHECKED.fullmatch(name):
            return name, "", True
        name = only_nodes.get(kind, "") if _MADE_UP.fullmatch(name) else name
        return f"{kind} '{name}'" if name else kind, text[found.end() :], True
    text = _plain(text)
    found = _OPENVINO_NODE.match(text)
    if found is not None:
        node = f"{found['kind'] or found['type']} '{found['name'] or found['named']}'"
        return node, text[found.end() :], found["is_check"] is not None
    return "", text, False


def _plain(text: str) -> str:
    """Join the lines of a vendor's message, and remove stack traces and source locations."""
    text = _ONNXRUNTIME_CODE.sub("", _OPENVINO_TRACE.sub("", text))
    return _CONDITION.sub("", " ".join(_SOURCE_PLACE.sub("", " ".join(text.split())).split()))


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else text[: _MAX_CHARACTERS - 3] + "..."


def _memory_failure(text: str, node: str, said: str, inputs: Mapping[str, Array]) -> TriuneError:
    """The error for a failed allocation: InvalidArgumentError if the request needs more memory than the machine has."""
    found, largest = _NUM_BYTES.search(text), _LARGEST_BUFFER.search(text)
    given = f"{given_values(inputs)}{_given_shapes(inputs)}"
    if largest is not None:
        return InvalidArgumentError(
            f"the model cannot compute these inputs: {said}{given}; send values and shapes whose arrays take at most "
            f"{largest[1]} bytes each"
        )
    has_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if found is not None and float(found[1]) * 1024 ** (" KMGTPE".index(found[2] or " ")) > has_bytes:
        return InvalidArgumentError(
            f"the model cannot compute these inputs: {said}{given}; this machine has {has_bytes} bytes of memory: send "
            "values and shapes that take less"
        )
    return NoMemoryError(
        f"there is not the memory to compute these inputs now: {said}{given}; send the request later, or a smaller one",
        printable(f"{node}{given_values(inputs)}") if node else "",
    )


def _given_shapes(inputs: Mapping[str, Array]) -> str:
    """The part of a message that has the shapes of large inputs, whose values `given_values` leaves out."""
    shown = [f"{name} {format_shape(array.shape)}" for name, array in inputs.items() if array.size > _MAX_SHOWN]
    few = shown[:_MAX_SHOWN_INPUTS]
    return f" (of shapes {', '.join(few)}{', ...' if len(few) < len(shown) else ''})" if shown else ""


def given_values(inputs: Mapping[str, Array]) -> str:
    """The part of a message that has the values of small inputs, usually parameters such as sizes and axes."""
    shown = [f"{name} = {_shown(array)}" for name, array in inputs.items() if array.size <= _MAX_SHOWN]
    few = shown[:_MAX_SHOWN_INPUTS]
    return f" (given {', '.join(few)}{', ...' if len(few) < len(shown) else ''})" if shown else ""


def _shown(array: Array) -> str:
    if array.dtype.kind == "O":
        texts = [each.decode(errors="replace") if isinstance(each, bytes) else str(each) for each in array.ravel()]
        return f"{[text[:_MAX_SHOWN_CHARACTERS] for text in texts]}"
    return f"{array.tolist()}"
