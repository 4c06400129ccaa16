"""Decodes and encodes the HTTP bodies of inference requests and responses: JSON, followed by binary tensors.

Source: the KServe open inference protocol, and Triton's binary tensor data extension.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import orjson

from triune.core.datatypes import Array, DataType
from triune.core.errors import InvalidArgumentError
from triune.core.requests import InferenceRequest, InferenceResponse, Parameter, RequestedOutput
from triune.frontends.bodies.compression import Body
from triune.frontends.bodies.json_parsing import parse_repeating, refuse_repeats
from triune.frontends.bodies.json_values import as_array, as_object, json_name, wrong_type
from triune.frontends.kserve.http.json_tensors import decode_json, encode_json
from triune.frontends.kserve.http.parameters import as_count, decode_parameter, tensor_parameters
from triune.frontends.kserve.tensors import check_count, count_objects, decode_raw, encode_raw

_DATATYPES = {each.value: each for each in DataType}
_MAX_ANSWERS = 16
_DATATYPE_NAMES = {each.dtype: each.value for each in DataType}


@dataclass(slots=True)
class OutputForm:
    """Whether a client wants its outputs as binary data or in JSON.

    Attributes:
        is_binary: whether outputs that the request does not name are binary.
        by_name: whether each named output is binary.
        answers: a cache of the JSON of earlier binary responses in this form, without the id. Its key consists of the
            model, the version and the outputs' names, dtypes, shapes and sizes. None if the form is used only once.
    """

    is_binary: bool
    by_name: dict[str, bool]
    answers: dict[tuple[object, ...], bytes] | None = field(default=None, compare=False)


def decode_request(
    model: str, version: int | None, body: Body, header_bytes: int | None
) -> tuple[InferenceRequest, OutputForm]:
    """Decode an inference request.

    Args:
        model: the model's name, from the path.
        version: the version, from the path.
        body: the decompressed body. The request's arrays are views of it.
        header_bytes: the size of the JSON (Inference-Header-Content-Length); None if the whole body is JSON.

    Raises:
        InvalidArgumentError: the body is not an inference request; the message says where and why.
        UnsupportedError: the request uses shared memory.
    """
    view = memoryview(body)
    total_bytes = len(view)
    if header_bytes is None:
        header_bytes = total_bytes
    elif header_bytes > total_bytes:
        raise InvalidArgumentError(
            f"Inference-Header-Content-Length is {header_bytes}, but the body has only {total_bytes} bytes"
        )
    text = view[:header_bytes]
    document = as_object(parse_repeating(text), "the request")
    inputs = _decode_inputs(model, document, view, header_bytes)
    request_id = document.get("id", "")
    if type(request_id) is not str:
        raise wrong_type("'id'", "a string", request_id)
    given = document.get("parameters")
    if given is None:
        form = OutputForm(False, {})
        request = InferenceRequest(model, inputs, version, _decode_outputs(document, form), request_id, {})
        refuse_repeats(text, _num_keys(document))
        return request, form
    parameters: dict[str, Parameter] = {}
    check_count(len(as_object(given, "'parameters'")), "parameters")
    for name, value in given.items():
        parameters[name] = decode_parameter(name, value)
    form = OutputForm(bool(parameters.pop("binary_data_output", False)), {})
    priority = cast(int, parameters.pop("priority", 0))
    timeout_us = cast(int, parameters.pop("timeout", 0))
    outputs = _decode_outputs(document, form)
    refuse_repeats(text, _num_keys(document) + len(given))
    return InferenceRequest(model, inputs, version, outputs, request_id, parameters, priority, timeout_us), form


def _num_keys(document: dict[str, Any]) -> int:
    """The number of keys in the JSON of a request, without those in its top-level parameters."""
    count = len(document)
    for items in (document["inputs"], document.get("outputs") or ()):
        for item in items:
            count += len(item) + len(item.get("parameters") or ())
    return count


def _decode_inputs(model: str, document: dict[str, Any], view: memoryview, offset: int) -> dict[str, Array]:
    inputs: dict[str, Array] = {}
    total_bytes = len(view)
    if "inputs" not in document:
        raise InvalidArgumentError("the request has no 'inputs'")
    num_objects = 0
    for item in _tensors_of(document, "inputs"):
        name = _name_of(item, "input")
        if name in inputs:
            raise InvalidArgumentError(f"input '{name}' already exists in request; give each input once")
        datatype, shape = _decode_type(name, item)
        size = tensor_parameters(item, "input").get("binary_data_size")
        if size is None:
            if "data" not in item:
                raise InvalidArgumentError(
                    f"input '{name}' has neither 'data' nor the parameter 'binary_data_size'; give one of them"
                )
            inputs[name] = decode_json(name, datatype, shape, item["data"])
            num_objects = count_objects(num_objects, inputs[name])
            continue
        if "data" in item:
            raise InvalidArgumentError(f"input '{name}' has both 'data' and 'binary_data_size'; give one of them")
        if type(size) is not int or size < 0:
            as_count(size, f"'binary_data_size' of input '{name}'")
        end = offset + size
        if end > total_bytes:
            raise InvalidArgumentError(
                f"input '{name}' has a 'binary_data_size' of {size}, but {total_bytes - offset} bytes of the body "
                "are left for it; is Inference-Header-Content-Length the size of the JSON?"
            )
        inputs[name] = decode_raw(name, datatype, shape, view[offset:end], model)
        num_objects = count_objects(num_objects, inputs[name])
        offset = end
    if offset != total_bytes:
        raise InvalidArgumentError(f"{total_bytes - offset} bytes of the body are left over: no input takes them")
    return inputs


def _tensors_of(document: dict[str, Any], kind: str) -> list[Any]:
    items = as_array(document[kind], f"'{kind}'")
    check_count(len(items), kind)
    return items


def _name_of(item: Any, what: str) -> str:
    if type(item) is not dict:
        raise wrong_type(f"each of '{what}s'", "an object", item)
    name = cast("dict[str, Any]", item).get("name")
    if type(name) is not str:
        raise wrong_type(f"the 'name' of an {what}", "a string", name)
    return name


def _decode_type(name: str, item: dict[str, Any]) -> tuple[DataType, tuple[int, ...]]:
    value = item.get("datatype")
    datatype = _DATATYPES.get(value) if type(value) is str else None
    if datatype is None:
        found = f"'{value[:64]}'" if type(value) is str else json_name(value)
        known = ", ".join(_DATATYPES)
        raise InvalidArgumentError(f"the 'datatype' of input '{name}' is {found}; expected one of {known}")
    shape = item.get("shape")
    if type(shape) is list:
        for dim in cast("list[object]", shape):
            if type(dim) is not int:
                break
        else:
            return datatype, tuple(cast("list[int]", shape))
    raise InvalidArgumentError(f"the 'shape' of input '{name}' must be an array of integers")


def _decode_outputs(document: dict[str, Any], form: OutputForm) -> tuple[RequestedOutput, ...]:
    if document.get("outputs") is None:
        return ()
    outputs: list[RequestedOutput] = []
    for item in _tensors_of(document, "outputs"):
        name = _name_of(item, "output")
        if name in form.by_name:
            raise InvalidArgumentError(f"output '{name}' already exists in request; name each output once")
        parameters = tensor_parameters(item, "output")
        is_binary = parameters.get("binary_data", form.is_binary)
        if type(is_binary) is not bool:
            raise wrong_type(f"'binary_data' of output '{name}'", "true or false", is_binary)
        num_classes = as_count(parameters.get("classification", 0), f"'classification' of output '{name}'")
        form.by_name[name] = is_binary
        outputs.append(RequestedOutput(name, num_classes))
    return tuple(outputs)


def encode_response(response: InferenceResponse, form: OutputForm) -> tuple[list[bytes | memoryview], int | None]:
    """Encode the body of a response.

    Returns:
        the parts of the body, in order; and the size of the first part, the JSON, if binary data follow it, else None.

    Raises:
        InvalidArgumentError: an output was requested as JSON, which cannot express it.
    """
    parts: list[bytes | memoryview] = [b""]
    key: list[object] = [response.model, response.version]
    sizes: dict[str, int] = {}
    by_name, default = form.by_name, form.is_binary
    answers = None if response.parameters else form.answers
    for name, array in response.outputs.items():
        if by_name.get(name, default):
            raw = encode_raw(array)
            if raw:
                parts.append(raw)
            num_bytes = sizes[name] = len(raw)
            key += (name, array.dtype, array.shape, num_bytes)
        else:
            answers = None
    if answers is None:
        text = _describe(response, sizes)
    else:
        known = tuple(key)
        text = answers.get(known)
        if text is None:
            if len(answers) >= _MAX_ANSWERS:
                answers.clear()
            text = answers[known] = _describe(response, sizes)
    if response.id:
        text = b'{"id":%s,%s' % (orjson.dumps(response.id), text[1:])
    parts[0] = text
    return parts, len(text) if len(parts) > 1 else None


def _describe(response: InferenceResponse, sizes: Mapping[str, int]) -> bytes:
    """Encode a response's JSON without the id. `sizes` has the size in bytes of each binary output."""
    document = describe_response(response)
    items: list[dict[str, object]] = []
    for name, array in response.outputs.items():
        item = describe_output(name, array)
        if name in sizes:
            item["parameters"] = {"binary_data_size": sizes[name]}
        else:
            item["data"] = orjson.Fragment(encode_json(name, array))
        items.append(item)
    document["outputs"] = items
    return orjson.dumps(document)


def describe_response(response: InferenceResponse) -> dict[str, object]:
    """A response's JSON object, without the id and the outputs."""
    document: dict[str, object] = {"model_name": response.model, "model_version": str(response.version)}
    if response.parameters:
        document["parameters"] = response.parameters
    return document


def describe_output(name: str, array: Array) -> dict[str, object]:
    """An output's JSON object, without the data."""
    datatype = _DATATYPE_NAMES.get(array.dtype) or DataType.of(array).value
    return {"name": name, "datatype": datatype, "shape": array.shape}
