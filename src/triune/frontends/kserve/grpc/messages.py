"""Messages for model metadata, configs, statistics, the repository index, and loading and unloading."""

import json
from collections.abc import Sequence
from typing import Final, cast

import numpy as np
from google.protobuf.message import DecodeError

from triune.config.model_config import ModelConfig
from triune.config.parse import check_size
from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError
from triune.frontends.kserve import descriptions
from triune.frontends.kserve.tensors import check_count
from triune.protos.grpc_service_pb2 import (
    ModelConfigResponse,
    ModelMetadataResponse,
    ModelRepositoryParameter,
    ModelStatisticsResponse,
    RepositoryIndexResponse,
    RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest,
)
from triune.repository.model import IndexEntry
from triune.scheduling.models import LoadedVersion

MORE_STATISTICS: Final = "triune-statistics"
"""The name of the trailing metadata that contains the result of `more_statistics`."""

_MOST_VERSIONS: Final = 32
_MOST_STATISTICS_BYTES: Final = 4096

_FILE = "file:"

# The tag of the field `config`: the field's number, and wire type 2 (length-delimited).
_CONFIG = ModelConfigResponse.DESCRIPTOR.fields_by_name["config"].number << 3 | 2


def model_metadata(config: ModelConfig, versions: Sequence[int]) -> ModelMetadataResponse:
    """Make a ModelMetadataResponse. Shapes include the batch dimension, as clients send it."""
    return ModelMetadataResponse(**descriptions.model_metadata(config, versions))


def model_config(config: ModelConfig) -> bytes:
    """Make a ModelConfigResponse around the completed config, whose serialized bytes are reused."""
    return _CONFIG.to_bytes() + varint(len(config.encoded)) + config.encoded


def model_statistics(models: Sequence[LoadedVersion]) -> ModelStatisticsResponse:
    """Make a ModelStatisticsResponse: each version's statistics since it was loaded."""
    return ModelStatisticsResponse(**descriptions.statistics(models))


def more_statistics(models: Sequence[LoadedVersion]) -> str:
    """Triune's own statistics, for which the protobuf message has no field, as JSON in ASCII: a list with the `name`,
    `version` and `triune` of each version, as over HTTP.

    The text is sent in the trailing metadata. Clients accept at most 8 KiB of metadata: a longer list is replaced by a
    text that says how to get it.
    """
    if len(models) <= _MOST_VERSIONS:
        document = descriptions.statistics_with_energy(models)["model_stats"]
        told = json.dumps([{name: each[name] for name in ("name", "version", "triune")} for each in document])
        if len(told) <= _MOST_STATISTICS_BYTES:
            return told
    return json.dumps({"left_out": f"it takes more than {_MOST_STATISTICS_BYTES} bytes; ask for one model and version"})


def repository_index(entries: Sequence[IndexEntry]) -> RepositoryIndexResponse:
    """Make a RepositoryIndexResponse. A version, state or reason that an entry lacks is empty."""
    return RepositoryIndexResponse(models=descriptions.repository_index(entries))


def parse_load(data: memoryview) -> tuple[str, str, str | None, dict[str, Array]]:
    """Parse a RepositoryModelLoadRequest.

    Returns:
        the model's name, the repository's name, and the result of `load_parameters` with files as arrays.

    Raises:
        InvalidArgumentError: the message is malformed, or `load_parameters` raises it.
    """
    try:
        request = RepositoryModelLoadRequest.FromString(bytes(data))
    except DecodeError as error:
        raise InvalidArgumentError(
            f"the {len(data)} bytes received are not a valid RepositoryModelLoadRequest: {error}"
        ) from error
    config_json, files = load_parameters(request)
    arrays = {path: np.frombuffer(content, np.uint8) for path, content in files.items()}
    return request.model_name, request.repository_name, config_json, arrays


def load_parameters(request: RepositoryModelLoadRequest) -> tuple[str | None, dict[str, bytes]]:
    """Read the parameters of a load request.

    Returns:
        the config override (None if there is none), and the files by their path below the model's folder.

    Raises:
        PayloadTooLargeError: there are too many parameters, or the config is too large.
        InvalidArgumentError: a parameter is unknown or has the wrong type.
    """
    config_json: str | None = None
    files: dict[str, bytes] = {}
    check_count(len(request.parameters), "parameters")
    for name, parameter in request.parameters.items():
        if name == "config":
            _expect(name, parameter, "string_param")
            check_size(parameter.string_param)
            config_json = parameter.string_param
        elif name.startswith(_FILE):
            _expect(name, parameter, "bytes_param")
            files[name.removeprefix(_FILE)] = parameter.bytes_param
        else:
            raise InvalidArgumentError(
                f"load parameter '{name[:64]}' is unknown; 'config' and 'file:<version>/<file name>' are possible"
            )
    return config_json, files


def varint(value: int) -> bytes:
    """Encode a non-negative integer as a protobuf varint."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def is_unloading_dependents(request: RepositoryModelUnloadRequest) -> bool:
    """The parameter `unload_dependents`: whether to unload, with an ensemble, the models that only it needs.

    Raises:
        InvalidArgumentError: a parameter is unknown or has the wrong type.
    """
    result = False
    for name, parameter in request.parameters.items():
        if name != "unload_dependents":
            raise InvalidArgumentError(f"unload parameter '{name[:64]}' is unknown; 'unload_dependents' is possible")
        _expect(name, parameter, "bool_param")
        result = parameter.bool_param
    return result


def _expect(name: str, parameter: ModelRepositoryParameter, expected: str) -> None:
    choice = cast("str | None", parameter.WhichOneof("parameter_choice"))
    if choice != expected:
        raise InvalidArgumentError(f"parameter '{name[:64]}' came as {choice or 'nothing'}; expected {expected}")
