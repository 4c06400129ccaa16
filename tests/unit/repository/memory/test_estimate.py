"""What a version will take, by its files."""

import pytest
from google.protobuf import text_format

from triune.config.stamps import FileStamp
from triune.protos.model_config_pb2 import ModelConfig
from triune.repository.memory.estimate import estimate


def files(**sizes: int) -> dict[str, FileStamp]:
    return {name.replace("_", "."): FileStamp(size, "", 0, 0) for name, size in sizes.items()}


@pytest.mark.parametrize(
    ("config", "given", "expected"),
    [
        ("", files(model_onnx=100), 100),
        ("", files(model_onnx=100, model_data=1000), 1100),
        ("instance_group { count: 3 }", files(model_onnx=100), 300),
        ("instance_group { count: 2 } instance_group { kind: KIND_CPU }", files(model_onnx=100), 300),
        ('parameters { key: "units" value { string_value: "amx, cpu" } }', files(model_onnx=100), 200),
        ("", files(model_safetensors=100, pytorch_bin=100, config_json=1), 100),
        ("", files(model_gguf=70, readme_md=1), 70),
        (
            'backend: "transformer" parameters { key: "cache_bytes" value { string_value: "5000" } }',
            files(model_gguf=70),
            5070,
        ),
        ("", {}, 0),
    ],
)
def test_by_the_files(config: str, given: dict[str, FileStamp], expected: int) -> None:
    assert estimate(text_format.Parse(config, ModelConfig()), given) == expected
