"""Converts a model's outputs to the client's outputs: reshape and classification."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from triune.config.model_config import ModelConfig, TensorConfig
from triune.config.reshape import reshape_to_client
from triune.core.datatypes import Array
from triune.core.errors import InternalError, InvalidArgumentError
from triune.core.requests import InferenceRequest, InferenceResponse
from triune.core.servable import Finisher
from triune.core.threads import pause

MAX_CLASSIFICATION_ELEMENTS = 1_000_000
"""Triton's limit on an output that is sorted for classification."""

_ELEMENTS_AT_ONCE = 1 << 20
_TEXTS_AT_ONCE = 1024
# Rows of fewer elements are sorted completely, which is as fast as finding only the largest elements.
_MIN_PARTITIONED = 4096


def finisher(request: InferenceRequest, config: ModelConfig) -> Finisher | None:
    """Return the function that converts the model's response to the client's; None if they are the same."""
    num_classes = {output.name: output.num_classes for output in request.outputs if output.num_classes}
    if not num_classes and all(output.reshape is None for output in config.outputs.values()):
        return None

    def convert(response: InferenceResponse) -> InferenceResponse:
        response.outputs = {
            name: _finish(array, config, config.outputs[name], num_classes) for name, array in response.outputs.items()
        }
        return response

    return Finisher(convert, frozenset(num_classes))


def _finish(array: Array, config: ModelConfig, output: TensorConfig, num_classes: Mapping[str, int]) -> Array:
    has_batch = config.batching.max_batch_size > 0
    if output.reshape is not None:
        array = reshape_to_client(array, output, has_batch=has_batch)
    if output.name in num_classes:
        array = classify(array, num_classes[output.name], output, has_batch=has_batch)
    return array


def classify(array: Array, num_classes: int, output: TensorConfig, *, has_batch: bool) -> Array:
    """Format the `num_classes` largest values of each row as BYTES `value:index[:label]`, the largest first.

    Returns:
        BYTES [rows, k], or [k] without a batch dimension; k is `num_classes`, or the row's size if that is less.

    Raises:
        InvalidArgumentError: the datatype has no order, or the output is too large to sort.
        InternalError: the output lacks the batch dimension that the config states.

    Source: Triton's classification extension and `classification.cc` (floats as `%f`, integers as decimals).
    """
    if array.dtype.kind not in "uif":
        raise InvalidArgumentError(
            f"class result not available for output due to unsupported type '{output.datatype.value}': '{output.name}'"
        )
    if has_batch and array.ndim == 0:
        raise InternalError(f"the model gave output '{output.name}' as a scalar, without its batch dimension")
    # Compute the size of a row: reshape(-1) fails for arrays without elements.
    rows = array.reshape(array.shape[0], math.prod(array.shape[1:])) if has_batch else array.reshape(1, array.size)
    if rows.shape[1] > MAX_CLASSIFICATION_ELEMENTS:
        raise InvalidArgumentError(
            f"classification output tensor too large: '{output.name}' has {rows.shape[1]} elements in a row, and at "
            f"most {MAX_CLASSIFICATION_ELEMENTS} are sorted; ask for the tensor itself"
        )
    count = min(num_classes, rows.shape[1])
    if rows.shape[0] * count > MAX_CLASSIFICATION_ELEMENTS:
        raise InvalidArgumentError(
            f"classification output tensor too large: {count} classes for each of {rows.shape[0]} rows of "
            f"'{output.name}', and at most {MAX_CLASSIFICATION_ELEMENTS} are given; ask for fewer, or send fewer rows"
        )
    result = np.empty((rows.shape[0], count), dtype=np.object_)
    step = max(1, _ELEMENTS_AT_ONCE // max(1, rows.shape[1]))
    for begin in range(0, rows.shape[0], step):
        some = rows[begin : begin + step]
        order = _largest(some, count)
        values = np.take_along_axis(some, order, axis=1)
        texts = _texts(values.ravel(), order.ravel(), output.labels)
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            end = start + _TEXTS_AT_ONCE
            result[begin : begin + step].reshape(-1)[start:end] = texts[start:end]
    return result if has_batch else result[0]


def _largest(rows: Array, count: int) -> Array:
    """The indices of the `count` largest values of each row, the largest first. For equal values, the lower index comes
    first.

    NaN counts as the largest value.
    """
    num = rows.shape[1]
    if num < _MIN_PARTITIONED or count > num // 8:
        # To have lower indices first among equal values: sort the reversed row stably, and reverse the result.
        return num - 1 - np.argsort(rows[:, ::-1], axis=1, kind="stable")[:, ::-1][:, :count]
    order = np.empty((len(rows), count), np.int64)
    for place, row in enumerate(rows):
        least = np.partition(row, num - count)[num - count]
        kept = np.flatnonzero(~(row < least))
        order[place] = kept[_largest(row[None, kept], len(kept))[0, :count]]
    return order


def _texts(values: Array, indices: Array, labels: Sequence[str]) -> list[bytes]:
    """Format the values at `indices` as `value:index[:label]`. An empty label is left out, as in Triton."""
    form = "%f:%d" if values.dtype.kind == "f" else "%d:%d"
    texts: list[bytes] = []
    for value, index in zip(values.tolist(), indices.tolist(), strict=True):
        text = form % (value, index)
        if index < len(labels) and labels[index]:
            text = f"{text}:{labels[index]}"
        texts.append(text.encode())
        if len(texts) % _TEXTS_AT_ONCE == 0:
            pause()
    return texts
