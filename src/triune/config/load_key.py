"""The key of a load: a hash of everything that affects it. What was measured at one load is true for all loads with the
same key.
"""

import functools
import hashlib
import importlib.metadata
import platform
from collections.abc import Iterable, Sequence
from typing import Final

from triune.config.configure import Source
from triune.config.settings import Completion
from triune.config.stamps import FileStamps
from triune.core.version import VERSION
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.runtimes.machine import Machine
from triune.runtimes.registry import ROWS

# Libraries that affect loads, besides the libraries of the runtimes.
_LIBRARIES: Final = ("numpy", "onnx", "tokenizers", "safetensors", "jinja2", "llguidance", "soundfile", "soxr")


class LoadKeys:
    """Computes the keys of loads on one machine."""

    def __init__(self, machine: Machine, completion: Completion) -> None:
        """Args:
        machine: the machine that loads versions.
        completion: how configs are completed.
        """
        self._machine = machine
        self._completion = completion

    def of(self, source: Source, version: int) -> str:
        """Compute a hash of the version's files and those beside them, the config without its version policy and how it
        is completed, the custom operators, the machine, its operating system, and the versions of Triune and of all
        libraries that load models.
        """
        config = ModelConfigMessage()
        config.CopyFrom(source.message)
        config.ClearField("version_policy")
        return digest_of(
            [
                *self._versions,
                self._machine.custom_ops.digest() if self._machine.custom_ops else "",
                repr(self._machine.units),
                repr((self._machine.num_cores, self._completion, sorted(self._machine.runtimes))),
                config.SerializeToString(deterministic=True).hex(),
                *_words(source.stamp.versions.get(version, {})),
                "",
                *_words(source.stamp.companions()),
            ]
        )

    @functools.cached_property
    def _versions(self) -> Sequence[str]:
        """The name and version of Triune, of the operating system, and of every library that loads models, as texts."""
        found = [VERSION, platform.platform(), platform.machine()]
        for name in sorted({*_LIBRARIES, *(each for row in ROWS for each in row.distributions)}):
            try:
                found.append(f"{name} {importlib.metadata.version(name)}")
            except importlib.metadata.PackageNotFoundError:
                found.append(name)
        return found


def digest_of(words: Iterable[str]) -> str:
    """The SHA-256 of a list of texts."""
    digest = hashlib.sha256()
    for word in words:
        digest.update(f"{len(word)} {word}".encode())
    return digest.hexdigest()


def _words(files: FileStamps) -> list[str]:
    return [word for path, each in sorted(files.items()) for word in (path, f"{each.num_bytes}", each.digest)]
