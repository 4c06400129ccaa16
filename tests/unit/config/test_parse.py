import pytest

from triune.config.parse import parse_json, parse_text, without_duplicates
from triune.core.errors import InvalidArgumentError
from triune.protos.model_config_pb2 import ModelConfig, ModelInstanceGroup

EVERY_FIELD = """
# Every field of Triton's ModelConfig, at least once.
name: "m"  platform: "onnxruntime_onnx"  backend: "onnxruntime"  runtime: "libtriton_onnxruntime.so"
version_policy { specific { versions: [ 1, 3 ] } }
max_batch_size: 8
input [ { name: "i" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 3, -1, 5 ] reshape { shape: [ 15 ] }
          is_shape_tensor: false allow_ragged_batch: true optional: true is_non_linear_format_io: false } ]
output { name: "o" data_type: TYPE_STRING dims: 1 reshape { shape: [] } label_filename: "labels.txt"
         is_shape_tensor: false is_non_linear_format_io: false }
batch_input { kind: BATCH_ITEM_SHAPE target_name: "t" data_type: TYPE_INT32 source_input: "i" }
batch_output { target_name: "o" kind: BATCH_SCATTER_WITH_INPUT_SHAPE source_input: "i" }
optimization {
  graph { level: 1 } priority: PRIORITY_MAX
  cuda { graphs: true busy_wait_events: true output_copy_stream: true
         graph_spec { batch_size: 1 input { key: "i" value { dim: [ 3 ] } }
                      graph_lower_bound { batch_size: 1 input { key: "i" value { dim: [ 3 ] } } } } }
  execution_accelerators { gpu_execution_accelerator { name: "tensorrt" parameters { key: "a" value: "b" } }
                           cpu_execution_accelerator { name: "openvino" } }
  input_pinned_memory { enable: true } output_pinned_memory { enable: false }
  gather_kernel_buffer_threshold: 1 eager_batching: true }
dynamic_batching {
  preferred_batch_size: [ 2, 4 ] max_queue_delay_microseconds: 18446744073709551615 preserve_ordering: true
  priority_levels: 3 default_priority_level: 2
  default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 5 allow_timeout_override: true
                         max_queue_size: 7 }
  priority_queue_policy { key: 1 value { timeout_action: REJECT } } }
instance_group [ { name: "g" kind: KIND_CPU count: 2 gpus: [ 0 ] profile: "0" passive: true host_policy: "h"
                   secondary_devices { kind: KIND_NVDLA device_id: 1 }
                   rate_limiter { resources { name: "r" global: true count: 2 } priority: 1 } } ]
default_model_filename: "model.onnx"
cc_model_filenames { key: "7.5" value: "m75.onnx" }
metric_tags { key: "team" value: "vision" }
parameters { key: "units" value { string_value: "cpu,amx" } }
model_warmup [ { name: "w" batch_size: 2 count: 3
                 inputs { key: "i" value { data_type: TYPE_FP32 dims: [ 3, 4, 5 ] random_data: true } } } ]
model_operations { op_library_filename: "ops.so" }
model_transaction_policy { decoupled: true }
model_repository_agents { agents { name: "checksum" parameters { key: "a" value: "b" } } }
response_cache { enable: true }
model_metrics { metric_control { metric_identifier { family: "f" } histogram_options { buckets: [ 0.1, 1 ] } } }
"""


def test_every_field_is_accepted() -> None:
    message = parse_text(EVERY_FIELD.encode(), "m/config.pbtxt")
    in_text = {field.name for field, _ in message.ListFields()}
    others_of_the_oneof = {"sequence_batching", "ensemble_scheduling"}
    assert in_text | others_of_the_oneof == {field.name for field in ModelConfig.DESCRIPTOR.fields}
    assert message.dynamic_batching.max_queue_delay_microseconds == 2**64 - 1
    assert list(message.input[0].dims) == [3, -1, 5]
    assert message.output[0].HasField("reshape")
    assert message.instance_group[0].kind == ModelInstanceGroup.KIND_CPU


@pytest.mark.parametrize(
    "scheduler",
    [
        """sequence_batching { max_sequence_idle_microseconds: 5 direct { minimum_slot_utilization: 0.5 }
             control_input { name: "START" control { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] } }
             state { input_name: "a" output_name: "b" data_type: TYPE_FP32 initial_state { name: 'z' } } }""",
        "sequence_batching { oldest { max_candidate_sequences: 4 preferred_batch_size: 2 } iterative_sequence: true }",
        """ensemble_scheduling { max_inflight_requests: 2 step { model_name: "a" model_version: -1
             input_map { key: "x" value: "y" } output_map { key: "x" value: "y" } } }""",
    ],
)
def test_other_schedulers_are_accepted_too(scheduler: str) -> None:
    assert parse_text(scheduler.encode(), "config.pbtxt").WhichOneof("scheduling_choice") == scheduler.split()[0]


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ('nme: "x"', "1:1", ['no field "nme"', 'did you mean "name"?']),
        ('name: "x"\ninput [\n  { name: "a"\n    dimz: [ 1 ] } ]', "4:5", ["ModelInput", '"dimz"', '"dims"']),
        ("dynamic_batching {\n  max_queue_delay_ms: 5\n}", "2:3", ['did you mean "max_queue_delay_microseconds"?']),
        ("input { data_type: TYPE_FP23 }", "1:20", ["DataType", '"TYPE_FP23"', '"TYPE_FP32"']),
        ("max_batch_size: 1.5", "1:17", ["1.5"]),
        ("max_batch_size: 99999999999", "1:17", ["out of range"]),
        ("dynamic_batching { priority_levels: -1 }", "1:", ["-1"]),
        ('name: "a"\nname: "b"', "2:", ["name"]),
        ("dynamic_batching { }\nsequence_batching { }", "2:", ["sequence_batching", "dynamic_batching"]),
        ("input [\n { name: 'a' }", "2:", ["Expected"]),
        ('name: "a', "1:7", ["quote"]),
        ("zzz_qqq: 1", "1:1", ["known are: name, platform"]),
        ('name: "\\xff"', "1:", ["utf-8"]),
        ("[x.y] { }", "1:", ["extensions"]),
    ],
)
def test_errors_point_at_the_place(text: str, place: str, words: list[str]) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_text(text.encode(), "m/config.pbtxt")
    message = str(caught.value)
    assert message.startswith(f"m/config.pbtxt:{place}")
    for word in words:
        assert word in message


def test_bytes_that_are_no_text_are_pointed_at() -> None:
    with pytest.raises(InvalidArgumentError, match=r"^c:2:4: byte 0xff is not UTF-8"):
        parse_text(b"# a\n#  \xff", "c")


def test_json_and_text_say_the_same() -> None:
    json = """{"name": "m", "maxBatchSize": 8, "input": [{"name": "i", "data_type": "TYPE_FP32", "dims": ["-1", 4]}],
               "dynamic_batching": {}, "parameters": {"units": {"string_value": "amx"}}}"""
    text = b"""name: "m" max_batch_size: 8 input { name: "i" data_type: TYPE_FP32 dims: [ -1, 4 ] } dynamic_batching { }
               parameters { key: "units" value { string_value: "amx" } }"""
    assert parse_json(json, "config") == parse_text(text, "config.pbtxt")


@pytest.mark.parametrize(
    ("json", "words"),
    [
        ('{"nme": 1}', ['no field "nme"', 'did you mean "name"?']),
        ('{"input": [{}, {"dimz": [1]}]}', ["ModelInput", "input[1]", '"dims"']),
        ('{"input": [{"data_type": "TYPE_FP23"}]}', ['"TYPE_FP32"', "input[0]"]),
        ('{"input": {}}', ["input", "[]"]),
        ('{"max_batch_size": "eight"}', ["max_batch_size", "eight"]),
        ('{"max_batch_size": 1e99}', ["max_batch_size", "out of range"]),
        ('{"max_batch_size": NaN}', ["max_batch_size"]),
        ('{"version_policy": 5}', ["version_policy"]),
        ('{"version_policy": {"latest": 5}}', ["version_policy"]),
        ('{"instance_group": [null]}', ["instance_group[0]"]),
        ('{"name": "a",\n "name": "b"}', ['"name" is given twice']),
        ('{"name": "a",\n oops}', ["config:2:2", "not JSON"]),
        ("[1, 2]", ["expected a JSON object", "list"]),
        ("", ["config:1:1", "not JSON"]),
        ('{"dynamic_batching": {}, "sequence_batching": {}}', ["scheduling_choice"]),
        ('{"name": "\\ud800"}', ["name"]),
        ('{"max_batch_size": ' + "9" * 5000 + "}", ["4300 digits"]),
        ('{"a":' * 100_000, ["nested too deep", "1,000 levels"]),
    ],
)
def test_wrong_json_is_named(json: str, words: list[str]) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_json(json, "config")
    for word in words:
        assert word in str(caught.value)
    assert "Available Fields" not in str(caught.value)


class Counted(str):
    """A text that counts how often it is compared."""

    __slots__ = ()
    num_compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.num_compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_a_field_that_is_there_twice_is_found_without_comparing_all_with_all() -> None:
    names = [f"name{number}" for number in range(1000)]
    with pytest.raises(ValueError, match='the field "name999" is given twice'):
        without_duplicates([(Counted(name), None) for name in [*names, "name999"]])
    assert Counted.num_compared < 10 * len(names)
