import json
from typing import Any, cast

from google.protobuf import text_format

from triune.config.write import write_json
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage

TEXT = """
name: "m" platform: "onnxruntime_onnx" max_batch_size: 8
version_policy { specific { versions: [1, 4] } }
input [{ name: "x" data_type: TYPE_FP32 dims: [-1, 16] reshape { shape: [16] } }]
dynamic_batching {
  max_queue_delay_microseconds: 100
  priority_levels: 2
  default_queue_policy { default_timeout_microseconds: 9007199254740993 }
  priority_queue_policy { key: 1 value { default_timeout_microseconds: 5 max_queue_size: 3 } }
}
model_warmup [{ name: "w" inputs { key: "x" value { data_type: TYPE_FP32 dims: [16] zero_data: true } } }]
parameters { key: "units" value { string_value: "cpu" } }
"""


def test_a_config_shows_64_bit_integers_as_numbers_wherever_they_are() -> None:
    message = text_format.Parse(TEXT, ModelConfigMessage())
    document = cast(Any, json.loads(write_json(message)))
    assert document["version_policy"] == {"specific": {"versions": [1, 4]}}
    (tensor,) = document["input"]
    assert (tensor["data_type"], tensor["dims"], tensor["reshape"]["shape"]) == ("TYPE_FP32", [-1, 16], [16])
    batching = document["dynamic_batching"]
    assert batching["max_queue_delay_microseconds"] == 100
    assert batching["default_priority_level"] == 0
    assert batching["default_queue_policy"]["default_timeout_microseconds"] == 2**53 + 1
    assert batching["priority_queue_policy"]["1"]["default_timeout_microseconds"] == 5
    assert document["model_warmup"][0]["inputs"]["x"]["dims"] == [16]
    assert document["parameters"] == {"units": {"string_value": "cpu"}}
    assert document["output"] == []
    assert "sequence_batching" not in document


def test_text_stays_as_it_is() -> None:
    message = ModelConfigMessage(name='m "\u00e9\u4e2d\n')
    assert json.loads(write_json(message))["name"] == message.name
    assert '\u00e9\u4e2d\\n"'.encode() in write_json(message)
