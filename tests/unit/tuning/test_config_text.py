"""A config that is written again has the author's text but for the changed fields."""

import pytest

from triune.config.parse import parse_text
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.tuning.config_text import changes, rewritten

TEXT = """# What this model is.
name: "m"
max_batch_size: 8  # as many as fit

input [ { name: "x", data_type: TYPE_FP32, dims: [ 3, 4 ] } ]
output [{ name: "y" data_type: TYPE_FP32 dims: [ 4 ] }]
dynamic_batching { }
# Where it runs.
instance_group [ { kind: KIND_CPU, count: 1 } ]
parameters { key: "units" value { string_value: "cpu,amx" } }
parameters { key: "other" value: { string_value: "a \\"quoted\\" # no comment }" } }
"""


def changed(text: str) -> tuple[ModelConfigMessage, ModelConfigMessage]:
    before = parse_text(text.encode(), "config")
    after = ModelConfigMessage()
    after.CopyFrom(before)
    return before, after


def test_only_what_changed_differs() -> None:
    before, after = changed(TEXT)
    after.max_batch_size = 16
    after.dynamic_batching.max_queue_delay_microseconds = 500
    after.parameters["units"].string_value = "amx"
    after.parameters["intra_op_thread_count"].string_value = "2"
    text = rewritten(TEXT, before, after)
    assert parse_text(text.encode(), "config") == after
    for kept in ("# What this model is.", "# as many as fit", "# Where it runs.", "dims: [ 3, 4 ]", "# no comment }"):
        assert kept in text
    assert "max_batch_size: 16  # as many as fit" in text
    assert text.index("max_queue_delay_microseconds: 500") < text.index("# Where it runs.")
    assert text.count("units") == 1
    assert changes(before, after).count("\n") >= 4


def test_a_field_is_removed() -> None:
    before, after = changed(TEXT)
    after.ClearField("dynamic_batching")
    del after.parameters["units"]
    text = rewritten(TEXT, before, after)
    assert parse_text(text.encode(), "config") == after
    assert "# Where it runs." in text
    assert "dynamic_batching" not in text
    assert "units" not in text


def test_an_empty_block_is_written() -> None:
    before, after = changed('name: "m" max_batch_size: 4')
    after.dynamic_batching.SetInParent()
    text = rewritten('name: "m" max_batch_size: 4', before, after)
    assert parse_text(text.encode(), "config") == after
    assert text.startswith('name: "m" max_batch_size: 4\n')


@pytest.mark.parametrize(
    "text",
    [
        "",
        "max_batch_size: 4, name: 'm';",
        'name: "a" "b" max_batch_size: 2',
        'parameters [ { key: "units" value { string_value: "cpu" } }, { key: "o" value { string_value: "1" } } ]',
        "instance_group { count: 1 } instance_group < count: 2 >",
        'max_batch_size: 4 # "no string',
        "parameters { key: 'units' value { string_value: 'cpu' } } parameters { key: 'units' value { } }",
    ],
)
def test_any_way_of_writing_gives_the_right_config(text: str) -> None:
    before, after = changed(text)
    assert rewritten(text, before, before) == text
    after.max_batch_size = 9
    after.parameters["units"].string_value = "gpu"
    del after.instance_group[:]
    after.instance_group.add(count=3)
    assert parse_text(rewritten(text, before, after).encode(), "config") == after
