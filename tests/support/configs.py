"""Model configurations for tests, with plain defaults for what a test does not specify."""

from collections.abc import Sequence
from pathlib import Path

from triune.config.model_config import ModelConfig, TensorConfig
from triune.config.policy import BatchingPolicy
from triune.core.units import Unit
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage


def model_config(
    inputs: Sequence[TensorConfig],
    outputs: Sequence[TensorConfig],
    *,
    name: str = "model",
    max_batch_size: int = 0,
    is_decoupled: bool = False,
) -> ModelConfig:
    """A config of a model on the CPU."""
    return ModelConfig(
        message=ModelConfigMessage(name=name, max_batch_size=max_batch_size),
        name=name,
        backend="onnxruntime",
        path=Path("model.onnx"),
        inputs={each.name: each for each in inputs},
        outputs={each.name: each for each in outputs},
        units=(Unit.CPU,),
        num_instances=1,
        batching=BatchingPolicy(max_batch_size=max_batch_size),
        warmup=(),
        parameters={},
        is_decoupled=is_decoupled,
        metric_tags={},
    )
