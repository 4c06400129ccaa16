"""Errors and signatures as JSON, for the messages between the server and a worker process."""

from collections.abc import Sequence
from typing import Any

from triune.core import errors
from triune.core.datatypes import DataType
from triune.core.errors import InternalError, TriuneError, no_memory
from triune.core.tensors import Rows, Signature, TensorSpec


def from_error(error: BaseException) -> list[str]:
    """Encode an error as its class and its message.

    A MemoryError becomes a NoMemoryError. Any other exception but a TriuneError becomes an InternalError that names its
    class.
    """
    if isinstance(error, MemoryError):
        return from_error(no_memory("this request"))
    if not isinstance(error, TriuneError):
        return [InternalError.__name__, f"the model failed: {type(error).__name__}: {error}"]
    # The server may not know the class, such as one that a model defines: send the nearest base class in `core.errors`.
    known = next(each for each in type(error).__mro__ if getattr(errors, each.__name__, None) is each)
    return [known.__name__, str(error)]


def to_error(encoded: Sequence[str]) -> TriuneError:
    """Decode what `from_error` encoded."""
    name, message = encoded
    kind = getattr(errors, name, None)
    if not isinstance(kind, type) or not issubclass(kind, TriuneError):
        return InternalError(f"{name}: {message}")
    return kind(message)


def from_signature(signature: Signature) -> dict[str, Any]:
    """Encode a signature as JSON values."""
    return {
        "inputs": [_from_spec(each) for each in signature.inputs],
        "outputs": [_from_spec(each) for each in signature.outputs],
        "max_batch_size": signature.max_batch_size,
        "rows": signature.rows.value,
    }


def to_signature(encoded: dict[str, Any]) -> Signature:
    """Decode what `from_signature` encoded."""
    inputs, outputs = (tuple(_to_spec(each) for each in encoded[kind]) for kind in ("inputs", "outputs"))
    return Signature(inputs, outputs, encoded["max_batch_size"], Rows(encoded["rows"]))


def _from_spec(spec: TensorSpec) -> list[Any]:
    return [spec.name, spec.datatype.value, spec.shape, spec.axes, spec.is_optional, spec.is_state, spec.has_rank]


def _to_spec(encoded: Sequence[Any]) -> TensorSpec:
    name, datatype, shape, axes, is_optional, is_state, has_rank = encoded
    return TensorSpec(name, DataType(datatype), tuple(shape), tuple(axes), is_optional, is_state, has_rank)
