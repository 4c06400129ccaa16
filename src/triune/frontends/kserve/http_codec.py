"""A KServe inference request and its response, as bodies of HTTP messages: JSON, then the binary tensors.

Source: the KServe open inference protocol, and Triton's binary tensor data extension.
"""

from dataclasses import dataclass, field
from typing import Any, cast

import orjson

from triune.core.datatypes import Array, DataType
from triune.core.errors import InvalidArgumentError
from triune.core.requests import InferenceRequest, InferenceResponse, Parameter, RequestedOutput
from triune.frontends.kserve.http_parameters import (
    as_array,
    as_bool,
    as_count,
    as_object,
    as_string,
    decode_parameter,
    refuse_shared_memory,
)
from triune.frontends.kserve.json_tensors import decode_json, encode_json, json_name
from triune.frontends.kserve.tensors import decode_raw, encode_raw

Body = bytes | bytearray | memoryview

_DATATYPES = {each.value: each for each in DataType}


@dataclass(slots=True)
class OutputForm:
    """How a client wants its outputs: as binary data or in JSON.

    Attributes:
        is_binary: the form of the outputs that were not named.
        by_name: whether binary, for each output that was named.
    """

    is_binary: bool = False
    by_name: dict[str, bool] = field(default_factory=dict[str, bool])


def decode_request(
    model: str, version: int | None, body: Body, header_bytes: int | None
) -> tuple[InferenceRequest, OutputForm]:
    """A request out of the body of a POST.

    Args:
        model: the model's name, out of the path.
        version: its version, out of the path.
        body: the body, decompressed. The request's arrays are views of it.
        header_bytes: the header Inference-Header-Content-Length: how much of the body is JSON; None: all of it.

    Raises:
        InvalidArgumentError: the body is not an inference request; the message says where and why.
        UnsupportedError: it asks for shared memory.
    """
    view = memoryview(body)
    total_bytes = len(view)
    if header_bytes is None:
        header_bytes = total_bytes
    elif header_bytes > total_bytes:
        raise InvalidArgumentError(
            f"Inference-Header-Content-Length is {header_bytes}, but the body has only {total_bytes} bytes"
        )
    document = as_object(parse_json(view[:header_bytes]), "the request")
    parameters: dict[str, Parameter] = {}
    given = document.get("parameters")
    if given is not None:
        for name, value in as_object(given, "'parameters'").items():
            parameters[name] = decode_parameter(name, value)
    form = OutputForm(is_binary=bool(parameters.pop("binary_data_output", False)))
    request = InferenceRequest(
        model,
        _decode_inputs(document, view, header_bytes),
        version,
        _decode_outputs(document, form),
        as_string(document.get("id", ""), "'id'"),
        parameters,
        cast(int, parameters.pop("priority", 0)),
        cast(int, parameters.pop("timeout", 0)),
    )
    return request, form


def parse_json(body: Body) -> object:
    """The JSON value in `body`. Raises InvalidArgumentError if there is none."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidArgumentError(f"the request's body is not valid JSON: {error}") from None


def _decode_inputs(document: dict[str, Any], view: memoryview, offset: int) -> dict[str, Array]:
    inputs: dict[str, Array] = {}
    total_bytes = len(view)
    try:
        items = document["inputs"]
    except KeyError:
        raise InvalidArgumentError("the request has no 'inputs'") from None
    for each in as_array(items, "'inputs'"):
        item = as_object(each, "each of 'inputs'")
        name = as_string(item.get("name"), "the 'name' of an input")
        if name in inputs:
            raise InvalidArgumentError(f"input '{name}' is given twice")
        datatype = _decode_datatype(name, item.get("datatype"))
        shape = _decode_shape(name, item.get("shape"))
        parameters = item.get("parameters")
        size = None
        if parameters is not None:
            parameters = as_object(parameters, f"'parameters' of input '{name}'")
            refuse_shared_memory(parameters, f"input '{name}'")
            size = parameters.get("binary_data_size")
        if size is None:
            if "data" not in item:
                raise InvalidArgumentError(
                    f"input '{name}' has neither 'data' nor the parameter 'binary_data_size'; give one of them"
                )
            inputs[name] = decode_json(name, datatype, shape, item["data"])
            continue
        if "data" in item:
            raise InvalidArgumentError(f"input '{name}' has both 'data' and 'binary_data_size'; give one of them")
        end = offset + as_count(size, f"'binary_data_size' of input '{name}'")
        if end > total_bytes:
            raise InvalidArgumentError(
                f"input '{name}' has a 'binary_data_size' of {size}, but {total_bytes - offset} bytes of the body "
                "are left for it; is Inference-Header-Content-Length the size of the JSON?"
            )
        inputs[name] = decode_raw(name, datatype, shape, view[offset:end])
        offset = end
    if offset != total_bytes:
        raise InvalidArgumentError(f"{total_bytes - offset} bytes of the body are left over: no input takes them")
    return inputs


def _decode_datatype(name: str, value: object) -> DataType:
    datatype = _DATATYPES.get(value) if type(value) is str else None
    if datatype is not None:
        return datatype
    found = f"'{value[:64]}'" if type(value) is str else json_name(value)
    raise InvalidArgumentError(f"the 'datatype' of input '{name}' is {found}; expected one of {', '.join(_DATATYPES)}")


def _decode_shape(name: str, value: object) -> tuple[int, ...]:
    if type(value) is list:
        shape = cast("list[object]", value)
        for dim in shape:
            if type(dim) is not int:
                break
        else:
            return cast("tuple[int, ...]", tuple(shape))
    raise InvalidArgumentError(f"the 'shape' of input '{name}' must be an array of whole numbers")


def _decode_outputs(document: dict[str, Any], form: OutputForm) -> tuple[RequestedOutput, ...]:
    items = document.get("outputs")
    if not items and (items is None or type(items) is list):
        return ()
    outputs: list[RequestedOutput] = []
    for each in as_array(items, "'outputs'"):
        item = as_object(each, "each of 'outputs'")
        name = as_string(item.get("name"), "the 'name' of an output")
        if name in form.by_name:
            raise InvalidArgumentError(f"output '{name}' is asked for twice")
        is_binary, num_classes = False, 0
        parameters = item.get("parameters")
        if parameters is None:
            is_binary = form.is_binary
        else:
            parameters = as_object(parameters, f"'parameters' of output '{name}'")
            refuse_shared_memory(parameters, f"output '{name}'")
            is_binary = as_bool(parameters.get("binary_data", form.is_binary), f"'binary_data' of output '{name}'")
            num_classes = as_count(parameters.get("classification", 0), f"'classification' of output '{name}'")
        form.by_name[name] = is_binary
        outputs.append(RequestedOutput(name, num_classes))
    return tuple(outputs)


def encode_response(response: InferenceResponse, form: OutputForm) -> tuple[list[bytes | memoryview], int | None]:
    """The body of a response.

    Returns:
        its parts, one after another, and the size of the first, the JSON, if binary data follow it; else None.

    Raises:
        InvalidArgumentError: an output is to be JSON and has no such form.
    """
    document: dict[str, object] = {}
    if response.id:
        document["id"] = response.id
    document["model_name"] = response.model
    document["model_version"] = str(response.version)
    if response.parameters:
        document["parameters"] = response.parameters
    parts: list[bytes | memoryview] = [b""]
    items: list[dict[str, object]] = []
    by_name, default = form.by_name, form.is_binary
    for name, array in response.outputs.items():
        item: dict[str, object] = {"name": name, "datatype": DataType.of(array).value, "shape": array.shape}
        if by_name.get(name, default):
            raw = encode_raw(array)
            item["parameters"] = {"binary_data_size": len(raw)}
            if raw:
                parts.append(raw)
        else:
            item["data"] = orjson.Fragment(encode_json(name, array))
        items.append(item)
    document["outputs"] = items
    header = parts[0] = orjson.dumps(document)
    return parts, len(header) if len(parts) > 1 else None
