"""Reads the LoRA adapters of a version."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from triune.config.configure import Source
from triune.config.layout import inside
from triune.config.links import require_adapter_near
from triune.config.model_config import ModelConfig as Config
from triune.config.transformer import TransformerOptions
from triune.core.errors import InvalidArgumentError, NotFoundError, UnsupportedError
from triune.engine.weights.config import ModelConfig
from triune.engine.weights.lora import Adapter, read_adapter

_FOLDER: Final = "adapters"

MAX_ADAPTERS: Final = 64
"""The largest number of adapters of a version. Each step computes with the matrices of all adapters."""


def read_adapters(
    config: Config,
    source: Source,
    version: int,
    options: TransformerOptions,
    given: Mapping[str, Path],
    of_model: ModelConfig | None,
) -> list[Adapter]:
    """Read all adapters: those in the folder `adapters` beside the checkpoint, those that the config names, and those
    of `given`.

    Args:
        config: the completed config.
        source: the model on disk.
        version: its version.
        options: the config's parameters.
        given: the folders of further adapters, by name.
        of_model: the checkpoint's config; None for a graph that does not support adapters.

    Raises:
        InvalidArgumentError: two adapters have the same name, or there are too many. Also the errors of `read_adapter`.
        UnsupportedError: there are adapters, but the graph does not support them.
    """
    beside = (config.path if config.path.is_dir() else config.path.parent) / _FOLDER
    found = [(each.name, each) for each in sorted(beside.glob("*")) if each.is_dir() and each.name[0] != "."]
    named = [
        (name, inside(source.folder, path, f"the folder of adapter '{name[:64]}'"))
        for name, path in options.adapters.items()
    ]
    for _, folder in (*found, *named):
        if folder.is_dir():
            require_adapter_near(folder, source.folder)
    folders: dict[str, Path] = {}
    for name, folder in [*found, *named, *given.items()]:
        if name in folders and folders[name].resolve() != folder.resolve():
            raise InvalidArgumentError(
                f"'{folders[name]}' and '{folder}' are both the adapter '{name[:128]}' of version {version}; give them "
                "different names"
            )
        if not folder.is_dir():
            raise NotFoundError(f"adapter '{name[:128]}': there is no folder '{folder}'")
        folders[name] = folder
    if len(folders) > MAX_ADAPTERS:
        raise InvalidArgumentError(
            f"version {version} has {len(folders)} adapters; the limit is {MAX_ADAPTERS}: put some into another version"
        )
    if of_model is None:
        if folders:
            raise UnsupportedError(
                f"version {version} has the adapter '{next(iter(folders))[:128]}', and its graph was exported to ONNX, "
                "which takes none: serve the checkpoint that it was exported from"
            )
        return []
    return [read_adapter(folder, name, of_model) for name, folder in folders.items()]
