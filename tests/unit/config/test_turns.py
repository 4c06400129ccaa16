import pytest
from google.protobuf import text_format

from triune.config.turns import weight_of
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage


@pytest.mark.parametrize(
    ("config", "weight"),
    [
        ("", 1),
        ("instance_group [ { kind: KIND_CPU } ]", 1),
        ("instance_group [ { rate_limiter { priority: 0 } } ]", 1),
        ("instance_group [ { rate_limiter { priority: 4 } } ]", 1 / 4),
        ("instance_group [ { rate_limiter { priority: 4 } }, { rate_limiter { priority: 2 } } ]", 1 / 2),
        ("instance_group [ { rate_limiter { priority: 4294967295 } } ]", 1 / 4294967295),
    ],
)
def test_the_priority_of_the_rate_limiter_is_a_weight(config: str, weight: float) -> None:
    assert weight_of(text_format.Parse(config, ModelConfigMessage())) == weight
