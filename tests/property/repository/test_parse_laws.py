"""Whatever is written in a config, the answer is a message or a typed error, and what is read can be read again."""

import json
from collections.abc import Callable

from google.protobuf import json_format, text_format
from hypothesis import given
from hypothesis import strategies as st

from support.examples import examples
from support.repositories import Bench
from triune.config.batching import translate_batching
from triune.config.instances import read_instances
from triune.config.parse import parse_json, parse_text
from triune.config.unsupported import hints_without_effect, refuse_unsupported
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.tensors import Rows
from triune.protos.model_config_pb2 import ModelConfig

_WORDS = st.sampled_from(
    [*(field.name for field in ModelConfig.DESCRIPTOR.fields), "dims", "data_type", "TYPE_FP32", "KIND_GPU", "count"]
)
_PUNCTUATION = st.sampled_from([*"{}[]:,;<>#-.\\\"'\n \t", "0", "-1", "1e400", "nan", "\ud800", "\x00", "é"])
_TOKENS = st.lists(st.one_of(_WORDS, _PUNCTUATION, st.text(max_size=3), st.integers().map(str)), max_size=30)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.one_of(_WORDS, st.text(max_size=3)), inner, max_size=4)
    ),
    max_leaves=12,
)


def _outcome(read: Callable[[], ModelConfig]) -> str:
    """The typed error's message; empty if a config was read, which can then be written and read again."""
    try:
        message = read()
    except InvalidArgumentError as error:
        return str(error) or "no message"
    assert text_format.Parse(text_format.MessageToString(message), ModelConfig()) == message
    return ""


@given(st.binary(max_size=200))
def test_bytes_give_a_message_or_a_typed_error(content: bytes) -> None:
    error = _outcome(lambda: parse_text(content, "c"))
    assert not error or error.startswith("c:")


@examples(300)
@given(_TOKENS)
def test_near_configs_give_a_message_or_an_error_with_a_place(tokens: list[str]) -> None:
    content = " ".join(tokens).encode(errors="surrogatepass")
    error = _outcome(lambda: parse_text(content, "c"))
    if error:
        source, line, column, _ = error.split(":", 3)
        assert source == "c"
        assert 1 <= int(line) <= content.count(b"\n") + 2
        assert int(column) >= 1


@given(st.text(max_size=200))
def test_text_is_json_of_a_config_or_a_typed_error(content: str) -> None:
    error = _outcome(lambda: parse_json(content, "c"))
    assert not error or error.startswith("c:")


@examples(300)
@given(st.dictionaries(_WORDS, _JSON, max_size=5))
def test_any_json_gives_a_message_or_a_typed_error(value: dict[str, object]) -> None:
    error = _outcome(lambda: parse_json(json.dumps(value), "c"))
    assert not error or error.startswith("c:")


_numbers = st.integers(-(2**31), 2**31 - 1)
_counts = st.integers(0, 2**64 - 1)
_queue_policies = st.builds(
    lambda action, timeout, size: {
        "timeout_action": action,
        "default_timeout_microseconds": timeout,
        "max_queue_size": size,
    },
    st.sampled_from([0, 1]),
    _counts,
    st.integers(0, 2**32 - 1),
)
_configs = st.fixed_dictionaries(
    {"name": st.just("m"), "backend": st.just("onnxruntime")},
    optional={
        "max_batch_size": st.one_of(st.integers(-1, 16), _numbers),
        "dynamic_batching": st.fixed_dictionaries(
            {},
            optional={
                "preferred_batch_size": st.lists(st.one_of(st.integers(-1, 16), _numbers), max_size=4),
                "max_queue_delay_microseconds": _counts,
                "preserve_ordering": st.booleans(),
                "priority_levels": st.one_of(st.integers(0, 4), _counts),
                "default_priority_level": st.one_of(st.integers(0, 4), _counts),
                "default_queue_policy": _queue_policies,
                "priority_queue_policy": st.dictionaries(st.integers(0, 5), _queue_policies, max_size=3),
            },
        ),
        "instance_group": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "kind": st.integers(0, 5),
                    "count": st.one_of(st.integers(-1, 4), _numbers),
                    "gpus": st.lists(_numbers, max_size=2),
                    "passive": st.booleans(),
                },
            ),
            max_size=3,
        ),
        "parameters": st.fixed_dictionaries(
            {},
            optional={
                "units": st.builds(
                    lambda text: {"string_value": text},
                    st.sampled_from(["cpu", "amx,cpu", "cpu,cpu", "", ",", "CPU , AMX", "gpu", "npu", "ane,cpu"]),
                )
            },
        ),
    },
)


@examples(300)
@given(_configs)
def test_settings_give_a_sound_policy_and_placement_or_a_typed_error(value: dict[str, object]) -> None:
    message = json_format.ParseDict(value, ModelConfig())
    try:
        refuse_unsupported(message)
        hints_without_effect(message, Bench().machine)
        policy = translate_batching(message, Rows.SAME)
        instances = read_instances(message, Bench().machine)
    except (InvalidArgumentError, UnsupportedError):
        return
    assert policy.max_batch_size >= 0
    assert all(0 < size <= policy.max_batch_size for size in policy.preferred_batch_sizes)
    assert not policy.num_priority_levels or 1 <= policy.default_priority_level <= policy.num_priority_levels
    assert instances.units
    assert len(set(instances.units)) == len(instances.units)
    assert instances.num_instances >= 1
    assert all(group.name and group.count >= 1 for group in instances.groups)
