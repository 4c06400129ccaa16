"""Configs of models that encode texts. Such models are recognised by their files. Their input is texts, their output
embeddings or logits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from triune.config.checkpoints import complete_tensors, model_type_of, refuse_batching
from triune.config.instances import read_instances
from triune.config.layout import inside
from triune.config.model_config import ModelConfig
from triune.config.naming import named_copy
from triune.config.parameters import parameters_of
from triune.config.policy import BatchingPolicy
from triune.config.tensors import translate_tensors
from triune.core.datatypes import DataType
from triune.core.tensors import Signature, TensorSpec
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.runtimes.machine import Machine

ENCODER: Final = "encoder"
"""The name of the backend in config.pbtxt."""

GRAPH_BACKEND: Final = "onnxruntime"
"""The backend whose runtimes, options and units are used for an encoder's graph."""

TEXT_INPUT: Final = "text_input"
EMBEDDING_OUTPUT: Final = "embedding"
LOGITS_OUTPUT: Final = "logits"
COUNT_OUTPUT: Final = "num_tokens"

PART_TEXTS: Final = 64
"""The most texts of a request that are computed at once. A request with more texts is split into parts, so that
requests of other clients need not wait for all of it.
"""

_MODEL_TYPES: Final = frozenset({"bert"})


@dataclass(frozen=True, slots=True)
class EncoderOutput:
    """The output of an encoder, which has a row for each text.

    Attributes:
        name: EMBEDDING_OUTPUT or LOGITS_OUTPUT.
        width: the number of elements in a row.
        labels: the names of the classes; empty for embeddings.
    """

    name: str
    width: int
    labels: tuple[str, ...] = ()


def is_encoder(folder: Path, versions: Sequence[int]) -> bool:
    """Whether the checkpoint in the newest version of a model is one that encodes texts."""
    return model_type_of(folder / str(max(versions, default=0))) in _MODEL_TYPES


def checkpoint_folder(given: ModelConfigMessage, version_folder: Path) -> Path:
    """The folder with config.json and the weights: the version's folder, or the folder in it that
    `default_model_filename` names.
    """
    if not given.default_model_filename:
        return version_folder
    return inside(version_folder, given.default_model_filename, "default_model_filename")


def configure_encoder(
    given: ModelConfigMessage, name: str, version_folder: Path, machine: Machine, output: EncoderOutput
) -> ModelConfig:
    """Complete the configuration of a version.

    Args:
        given: the config as written; not changed.
        name: the model's folder.
        version_folder: the version's folder.
        machine: the machine with the units.
        output: the output that the checkpoint computes.

    Raises:
        InvalidArgumentError: the config contradicts itself or the checkpoint.
        UnsupportedError: the config requests something that the backend or this machine does not support.
    """
    message = named_copy(given, name)
    refuse_batching(message, f"a request to backend '{ENCODER}' holds any number of texts")
    signature = Signature(
        inputs=(TensorSpec(TEXT_INPUT, DataType.BYTES, (-1,)),),
        outputs=(
            TensorSpec(output.name, DataType.FP32, (-1, output.width)),
            TensorSpec(COUNT_OUTPUT, DataType.INT32, (-1,)),
        ),
    )
    complete_tensors(message, signature)
    inputs, outputs = translate_tensors(message, signature, {output.name: output.labels})
    message.backend = GRAPH_BACKEND
    instances = read_instances(message, machine)
    message.backend = ENCODER
    del message.instance_group[:]
    message.instance_group.extend(instances.groups)
    if not message.HasField("version_policy"):
        message.version_policy.latest.num_versions = 1
    return ModelConfig(
        message=message,
        name=name,
        backend=ENCODER,
        path=checkpoint_folder(given, version_folder),
        inputs=inputs,
        outputs=outputs,
        units=instances.units,
        num_instances=instances.num_instances,
        batching=BatchingPolicy(),
        warmup=(),
        parameters=parameters_of(message),
        is_decoupled=False,
        metric_tags=dict(message.metric_tags),
    )
