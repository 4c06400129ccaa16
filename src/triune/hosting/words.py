"""What crosses the channel beside tensors, as JSON: errors by class and message, signatures."""

from collections.abc import Sequence
from typing import Any

from triune.core import errors
from triune.core.datatypes import DataType
from triune.core.errors import InternalError, TriuneError, no_memory
from triune.core.tensors import Rows, Signature, TensorSpec


def from_error(error: Exception) -> list[str]:
    """The error's class and message. What is no TriuneError is an InternalError that names its class.

    But where memory was wanting, nobody is at fault.
    """
    if isinstance(error, MemoryError):
        return from_error(no_memory("this request"))
    if not isinstance(error, TriuneError):
        return [InternalError.__name__, f"the model failed: {type(error).__name__}: {error}"]
    # A class of a model's own is known to this process only: its nearest ancestor in the tree stands in.
    known = next(each for each in type(error).__mro__ if getattr(errors, each.__name__, None) is each)
    return [known.__name__, str(error)]


def to_error(words: Sequence[str]) -> TriuneError:
    """The error that `from_error` described."""
    name, message = words
    kind = getattr(errors, name, None)
    if not isinstance(kind, type) or not issubclass(kind, TriuneError):
        return InternalError(f"{name}: {message}")
    return kind(message)


def from_signature(signature: Signature) -> dict[str, Any]:
    """As JSON has it."""
    return {
        "inputs": [_from_spec(each) for each in signature.inputs],
        "outputs": [_from_spec(each) for each in signature.outputs],
        "max_batch_size": signature.max_batch_size,
        "rows": signature.rows.value,
    }


def to_signature(words: dict[str, Any]) -> Signature:
    """The signature that `from_signature` described."""
    inputs, outputs = (tuple(_to_spec(each) for each in words[kind]) for kind in ("inputs", "outputs"))
    return Signature(inputs, outputs, words["max_batch_size"], Rows(words["rows"]))


def _from_spec(spec: TensorSpec) -> list[Any]:
    return [spec.name, spec.datatype.value, spec.shape, spec.axes, spec.is_optional, spec.is_state, spec.has_rank]


def _to_spec(words: Sequence[Any]) -> TensorSpec:
    name, datatype, shape, axes, is_optional, is_state, has_rank = words
    return TensorSpec(name, DataType(datatype), tuple(shape), tuple(axes), is_optional, is_state, has_rank)
