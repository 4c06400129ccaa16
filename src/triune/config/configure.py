"""Make a ModelConfig from a model's folder: read, complete, check, translate."""

import errno
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from triune.config.batching import translate_batching
from triune.config.complete import complete_backend, complete_tensors, model_file, refuse_incomplete
from triune.config.encoder import ENCODER, is_encoder
from triune.config.instances import read_instances
from triune.config.layout import CONFIG_FILENAME, CONFIGS_FOLDER, choose_versions, find_versions, inside
from triune.config.links import require_data_near, require_near
from triune.config.metrics import require_bounds
from triune.config.misplaced import misplaced
from triune.config.model_config import ModelConfig
from triune.config.optimization import optimization_of
from triune.config.parameters import UNITS_PARAMETER, has_own_process, parameters_of, read_options
from triune.config.parse import LARGEST_CONFIG_BYTES, WHY_NO_LARGER, parse_json, parse_text
from triune.config.plan import read_plan
from triune.config.samples import translate_warmup
from triune.config.settings import DEFAULT_COMPLETION, Completion
from triune.config.speech import SPEECH, is_speech
from triune.config.stamps import Stamp
from triune.config.tensors import translate_tensors
from triune.config.transformer import TRANSFORMER, is_transformer
from triune.config.unsupported import refuse_unsupported
from triune.core.errors import InvalidArgumentError
from triune.core.files import read_file
from triune.core.tensors import Signature
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.runtimes.custom import resolved_file
from triune.runtimes.machine import Machine

_log = logging.getLogger(__name__)

_LARGEST_LABELS_BYTES = 64 << 20
"""The size limit of a label file. A larger one would take minutes to parse, or has no end."""


@dataclass(frozen=True, slots=True)
class Source:
    """A model on disk: its config as written and its versions. No runtime has opened its files yet.

    Attributes:
        name: the model's name.
        folder: the model's folder.
        message: the config as written; empty if there is none. For a checkpoint of a transformer, its backend is filled
            in.
        versions: the versions to serve, in ascending order.
        stamp: the fingerprint of the folder.
        parts: for an ensemble, the current configs of the models of its steps, by name and version; version None is
            the newest.
    """

    name: str
    folder: Path
    message: ModelConfigMessage
    versions: tuple[int, ...]
    stamp: Stamp
    parts: Mapping[tuple[str, int | None], ModelConfig] = field(
        default_factory=dict[tuple[str, int | None], ModelConfig]
    )

    def named_message(self) -> ModelConfigMessage:
        """A copy of the config with `name` filled in."""
        message = ModelConfigMessage()
        message.CopyFrom(self.message)
        message.name = message.name or self.name
        return message


def read_source(
    name: str,
    folder: Path,
    before: Stamp,
    config_json: str | None = None,
    completion: Completion = DEFAULT_COMPLETION,
    supports: Callable[[ModelConfigMessage], Collection[str]] = lambda _: (),
) -> Source:
    """Read a model's config and choose its versions.

    Args:
        name: the model's name.
        folder: its folder.
        before: the folder's fingerprint, computed before reading, so that later writes count as a change.
        config_json: replaces config.pbtxt.
        completion: which config file to read, and whether it must be complete.
        supports: the fields of `config.unsupported.FIELDS` that the config's backend supports.

    Raises:
        InvalidArgumentError: the config cannot be read or parsed, or the version policy selects no version.
        UnsupportedError: the config sets a field that its backend does not support.
    """
    message = parse_json(config_json, "config") if config_json is not None else _read_config(folder, completion)
    present = find_versions(folder)
    if not completion.is_off and is_speech(message, folder, present):
        message.backend = SPEECH
    elif not completion.is_off and is_transformer(message, folder, present):
        message.backend = message.backend or (ENCODER if is_encoder(folder, present) else TRANSFORMER)
    named = ModelConfigMessage()
    named.CopyFrom(message)
    named.name = named.name or name
    refuse_unsupported(named, supports(named))
    require_bounds(named)
    if completion.is_off:
        refuse_incomplete(named)
    versions = choose_versions(message.version_policy, present, name, partial(misplaced, folder))
    return Source(name, folder, message, tuple(versions), before)


def configure(
    source: Source, version: int, machine: Machine, completion: Completion = DEFAULT_COMPLETION
) -> ModelConfig:
    """Complete the configuration of one version of a tensor model. Compiles nothing.

    Raises:
        InvalidArgumentError: the config is wrong, or contradicts the model file.
        UnsupportedError: Triune or this machine does not support what the config asks for.
    """
    version_folder = source.folder / str(version)
    message = complete_backend(source.message, source.name, version_folder, machine)
    path = model_file(message, version_folder)
    parameters = parameters_of(message)
    runtime = machine.runtimes[message.backend]
    signature = runtime.inspect(path, read_options(parameters, runtime, message.backend))
    require_data_near(path, version_folder)
    path = resolved_file(path, machine.custom_ops)
    complete_tensors(message, signature, completion)
    batching = translate_batching(message, signature.rows)
    labels = {
        output.name: read_labels(source.folder, output.label_filename)
        for output in message.output
        if output.label_filename
    }
    inputs, outputs = translate_tensors(message, signature, labels)
    _warn_of_false_options(message, signature)
    instances = read_instances(message, machine)
    named = instances.units if UNITS_PARAMETER in message.parameters else ()
    plan = read_plan(parameters, message.backend, path.suffix, instances.num_instances, named, machine)
    del message.instance_group[:]
    message.instance_group.extend(instances.groups)
    return ModelConfig(
        message=message,
        name=message.name,
        backend=message.backend,
        path=path,
        inputs=inputs,
        outputs=outputs,
        units=(plan.named_units if plan is not None else ()) or instances.units,
        plan=plan,
        level=optimization_of(parameters, path.suffix, has_plan=plan is not None),
        has_own_process=has_own_process(message),
        num_instances=instances.num_instances,
        batching=batching,
        warmup=translate_warmup(message, inputs),
        parameters=parameters,
        is_decoupled=message.model_transaction_policy.decoupled,
        metric_tags=dict(message.metric_tags),
    )


def _read_config(folder: Path, completion: Completion) -> ModelConfigMessage:
    path = folder / CONFIG_FILENAME
    try:
        if completion.config_name:
            custom = inside(folder / CONFIGS_FOLDER, f"{completion.config_name}.pbtxt", "model_config_name")
            path = custom if custom.is_file() else path
        content = read_file(path, LARGEST_CONFIG_BYTES)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not path.is_symlink():
            return ModelConfigMessage()
        shown = f"{folder.name}/{path.relative_to(folder)}"
        why = f": {WHY_NO_LARGER}" if error.errno == errno.EFBIG else ""
        raise InvalidArgumentError(f"{shown} cannot be read: {error.strerror}{why}") from error
    return parse_text(content, f"{folder.name}/{path.relative_to(folder)}")


def read_labels(folder: Path, name: str) -> tuple[str, ...]:
    """Read a label file in a model's folder: one label in each line.

    Raises:
        InvalidArgumentError: the file cannot be read, is not UTF-8, or is outside the folder.
    """
    path = require_near(inside(folder, name, "label_filename"), folder, "label_filename")
    try:
        text = read_file(path, _LARGEST_LABELS_BYTES).decode("utf-8")
    except OSError as error:
        raise InvalidArgumentError(f"label_filename '{path.name}' cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"label_filename '{path.name}' is not UTF-8: {error.reason}") from error
    # Convert \r\n and \r to \n, as Python does when it reads text files.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return tuple(lines[:-1] if lines[-1] == "" else lines)


def _warn_of_false_options(message: ModelConfigMessage, signature: Signature) -> None:
    required = {spec.name for spec in signature.inputs if not spec.is_optional}
    for each in message.input:
        if each.optional and each.name in required:
            _log.warning(
                "model '%s': input '%s' is optional in the config, but the model file needs it: "
                "requests without it will fail",
                message.name,
                each.name,
            )
