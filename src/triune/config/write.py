"""Write Triton's ModelConfig as JSON, in which 64-bit integers are numbers.

Source: Triton's model configuration extension.
"""

import json
from typing import Any, TypeAlias, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import MessageToDict

from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage

_Json: TypeAlias = dict[str, Any]

_INT64_TYPES = (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)


def write_json(message: ModelConfigMessage) -> bytes:
    """Write a config with every field under its name in protobuf, and 64-bit integers as numbers. Call it in a
    thread.
    """
    document = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    # The JSON is written in pieces, since a single call would hold the GIL for the whole time.
    encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
    return "".join(encoder.iterencode(_convert_fields(cast(Descriptor, message.DESCRIPTOR), document))).encode()


def _convert_fields(descriptor: Descriptor, document: _Json) -> _Json:
    for name, value in document.items():
        field = descriptor.fields_by_name[name]
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            each = kind.fields_by_name["value"]
            document[name] = {key: _convert(each, entry) for key, entry in cast(_Json, value).items()}
        elif isinstance(value, list):
            document[name] = [_convert(field, entry) for entry in cast("list[Any]", value)]
        else:
            document[name] = _convert(field, value)
    return document


def _convert(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None:
        return _convert_fields(field.message_type, value)
    return int(value) if field.cpp_type in _INT64_TYPES else value
