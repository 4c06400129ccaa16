"""Make an ensemble's ModelConfig from its config as written. An ensemble has no model file."""

from collections.abc import Iterable

from triune.config.batching import translate_batching
from triune.config.configure import Source, parameters_of, read_labels
from triune.config.datatypes import from_config
from triune.config.ensemble.steps import PLATFORM, Step, translate_steps
from triune.config.model_config import ModelConfig
from triune.config.tensors import translate_tensors
from triune.core.errors import InvalidArgumentError
from triune.core.tensors import Rows, Signature, TensorSpec
from triune.protos.model_config_pb2 import ModelInput, ModelOutput


def configure_ensemble(source: Source, version: int) -> tuple[ModelConfig, tuple[Step, ...]]:
    """Complete the configuration of an ensemble, without checking the models of its steps.

    Returns:
        the configuration, and the steps.

    Raises:
        InvalidArgumentError: the config is invalid.
    """
    message = source.named_message()
    steps = translate_steps(message)
    if message.name != source.name:
        raise InvalidArgumentError(
            f"unexpected directory name '{source.name}' for model '{message.name}', "
            "directory name must equal model name"
        )
    for kind, tensors in (("input", message.input), ("output", message.output)):
        if not tensors:
            raise InvalidArgumentError(f"ensemble '{message.name}' must specify one or more '{kind}'s")
    # Fill in the same fields as Triton does when it completes an ensemble's config.
    if not message.HasField("version_policy"):
        message.version_policy.latest.num_versions = 1
    message.model_transaction_policy.SetInParent()
    signature = Signature(_specs(message.input, "input"), _specs(message.output, "output"))
    labels = {
        each.name: read_labels(source.folder, each.label_filename) for each in message.output if each.label_filename
    }
    inputs, outputs = translate_tensors(message, signature, labels)
    config = ModelConfig(
        message=message,
        name=message.name,
        backend=PLATFORM,
        path=source.folder / str(version),
        inputs=inputs,
        outputs=outputs,
        units=(),
        num_instances=0,
        batching=translate_batching(message, Rows.SAME),
        warmup=(),
        parameters=parameters_of(message),
        is_decoupled=False,
        metric_tags=dict(message.metric_tags),
    )
    return config, steps


def _specs(tensors: Iterable[ModelInput | ModelOutput], kind: str) -> tuple[TensorSpec, ...]:
    """The specifications of an ensemble's tensors, made from its config, since an ensemble has no model file."""
    return tuple(
        TensorSpec(each.name, from_config(each.data_type, f"model {kind} '{each.name}'"), (), has_rank=False)
        for each in tensors
    )
