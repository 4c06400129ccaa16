"""Estimates the memory of a version before it is loaded, from the sizes of its files."""

from collections.abc import Mapping
from pathlib import PurePath

from triune.config.parameters import UNITS_PARAMETER
from triune.config.stamps import FileStamps
from triune.config.transformer import TRANSFORMER
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage

_CHECKPOINT_SUFFIXES = (".safetensors", ".gguf")
"""If a folder has files with one of these suffixes, only these files hold weights that are loaded. Other files, such as
copies of the weights in other formats, are not counted.
"""


def weight_files(files: FileStamps) -> Mapping[str, int]:
    """The files of a version that hold its weights, with their sizes in bytes, by path."""
    for suffix in _CHECKPOINT_SUFFIXES:
        if chosen := {path: each.num_bytes for path, each in files.items() if PurePath(path).suffix == suffix}:
            return chosen
    return {path: each.num_bytes for path, each in files.items()}


def estimate(message: ModelConfigMessage, files: FileStamps) -> int:
    """The least memory that a version takes once it is loaded, in bytes.

    Each executable has its own copy of the weights, of about the file's size (docs/memory.md has measurements). There
    is an executable for each instance on each unit that the config names. A cache of keys and values counts where the
    config gives its size.

    Args:
        message: the config as written.
        files: the files in the version's folder.
    """
    parameters = {name: value.string_value for name, value in message.parameters.items()}
    num_instances = max(1, sum(max(1, each.count) for each in message.instance_group))
    num_units = max(1, len([unit for unit in parameters.get(UNITS_PARAMETER, "").split(",") if unit.strip()]))
    cache = parameters.get("cache_bytes", "") if message.backend == TRANSFORMER else ""
    weights = sum(weight_files(files).values())
    return weights * num_instances * num_units + (int(cache) if cache.isdigit() else 0)
