"""Decodes and encodes Triton's generate extension: a flat JSON object of inputs by name, and likewise of outputs.

Source: Triton's generate protocol extension.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import orjson

from triune.config.model_config import ModelConfig, TensorConfig
from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError
from triune.core.requests import InferenceRequest, InferenceResponse, Parameter
from triune.core.tensors import format_shape
from triune.frontends.bodies.json_parsing import RepeatedKeyError, parse_json
from triune.frontends.bodies.json_values import as_object, as_string, json_name
from triune.frontends.kserve.http.json_tensors import decode_json
from triune.frontends.kserve.http.large_requests import check_json, json_pieces
from triune.frontends.kserve.http.parameters import decode_parameter
from triune.frontends.kserve.large_tensors import pack
from triune.frontends.kserve.tensors import check_count


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """The inputs of a model: the part of its config that is needed to parse a generate request.

    Attributes:
        name: the name of the model.
        version: the requested version.
        has_batch: whether the first dimension of its inputs is a batch dimension.
        inputs: the inputs, by name.
    """

    name: str
    version: int | None
    has_batch: bool
    inputs: Mapping[str, TensorConfig]

    @classmethod
    def of(cls, config: ModelConfig, version: int | None) -> "ModelInputs":
        """The inputs of the model with this config."""
        return cls(config.name, version, config.batching.max_batch_size > 0, dict(config.inputs))


def parse_generate(model: ModelInputs, body: memoryview) -> InferenceRequest:
    """Parse and decode a body in a parser process; BYTES inputs are packed. Raises the errors of `decode_generate`."""
    check_json(body)
    try:
        document = as_object(parse_json(body), "the request")
    except RepeatedKeyError as error:
        if error.key not in model.inputs:
            raise
        raise InvalidArgumentError(f"input '{error.key[:64]}' already exists in request: {error}") from None
    request = decode_generate(document, model)
    pack(request)
    return request


def decode_generate(document: Mapping[str, Any], model: ModelInputs) -> InferenceRequest:
    """Decode a generate request: a flat JSON object.

    A key with the name of an input has the input's value, one element or a flat array. Such keys may also be in
    `parameters`. Every other key is a parameter.

    Raises:
        InvalidArgumentError: a value is invalid for its input, or as a parameter.
    """
    fields = dict(document)
    request_id = as_string(fields.pop("id", ""), "'id'")
    nested = fields.pop("parameters", {})
    if type(nested) is not dict:
        raise InvalidArgumentError(f"Expected JSON object for keyword: 'parameters', not {json_name(nested)}")
    check_count(len(fields) + len(cast("dict[str, Any]", nested)), "inputs and parameters")
    twice = fields.keys() & nested.keys()
    if twice:
        raise InvalidArgumentError(f"'{min(twice)}' is given twice, in the request and in its 'parameters'")
    inputs: dict[str, Array] = {}
    parameters: dict[str, Parameter] = {}
    for name, value in (fields | cast("dict[str, Any]", nested)).items():
        tensor = model.inputs.get(name)
        if tensor is None:
            try:
                parameters[name] = decode_parameter(name, value)
            except InvalidArgumentError as error:
                if name in fields:
                    raise
                raise InvalidArgumentError(f"Converting keyword: 'parameters': {error}") from None
        else:
            inputs[name] = _decode_input(tensor, value, has_batch=model.has_batch)
    return InferenceRequest(
        model.name,
        inputs,
        model.version,
        id=request_id,
        parameters=parameters,
        priority=cast(int, parameters.pop("priority", 0)),
        timeout_us=cast(int, parameters.pop("timeout", 0)),
    )


def _decode_input(tensor: TensorConfig, value: Any, *, has_batch: bool) -> Array:
    elements = cast("list[Any]", value) if isinstance(value, list) else [value]
    dims = (-1, *tensor.dims) if has_batch else tensor.dims
    shape = _fill(dims, len(elements))
    if shape is None:
        raise InvalidArgumentError(
            f"{len(elements)} elements cannot fill input '{tensor.name}' of shape {format_shape(dims)}"
        )
    return decode_json(tensor.name, tensor.datatype, shape, elements)


def _fill(dims: tuple[int, ...], num_elements: int) -> tuple[int, ...] | None:
    """Replace dynamic dimensions by sizes: the innermost gets all remaining elements, the others get 1. None if the
    number of elements does not fit.
    """
    left = num_elements
    for dim in dims:
        if dim != -1:
            if dim == 0 or left % dim:
                return None
            left //= dim
    shape: list[int] = []
    for dim in reversed(dims):
        if dim == -1:
            shape.append(left)
            left = 1
        else:
            shape.append(dim)
    return tuple(reversed(shape)) if left == 1 else None


def encode_generate(response: InferenceResponse) -> Generator[int, None, bytes]:
    """Encode a response as a flat JSON object of parameters and outputs, as a generator for `Offload.in_steps`.

    An output with one element is written as that element, without an array.

    Raises:
        InvalidArgumentError: JSON cannot express an output.
    """
    document: dict[str, object] = {"id": response.id} if response.id else {}
    document |= {"model_name": response.model, "model_version": str(response.version)}
    document |= response.parameters
    parts: list[bytes] = []
    for name, value in document.items():
        if name not in response.outputs:
            parts += b",", orjson.dumps({name: value})[1:-1]
    for name, array in response.outputs.items():
        opening, closing = (b":", b"") if array.size == 1 else (b":[", b"]")
        parts += b",", orjson.dumps(name), opening
        parts += yield from json_pieces(name, array)
        parts.append(closing)
    yield sum(map(len, parts))
    return b"".join([b"{", *parts[1:], b"}"])
