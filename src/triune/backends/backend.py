"""The seam between a model's files and what answers its requests."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from triune.backends.attempt import Attempt
from triune.config.configure import Source
from triune.config.model_config import ModelConfig
from triune.core.servable import Servable
from triune.core.units import Unit
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.scheduling.models import Models


@dataclass(frozen=True, slots=True)
class Build:
    """A version that a backend has built, and that does not answer requests yet. Each backend has a subclass.

    Attributes:
        version: its number.
        config: the completed configuration.
        source: what it was built from.
        emulated: those of its units that are no hardware here.
    """

    version: int
    config: ModelConfig
    source: Source
    emulated: frozenset[Unit] = field(default=frozenset(), kw_only=True)

    @property
    def precisions(self) -> Mapping[Unit, str]:
        """What it computes in on each of its units; empty if it has none of its own."""
        return {}

    @property
    def shortfall(self) -> str:
        """Why it does not run everywhere that the config says; mostly empty. The index shows it."""
        return ""

    def __str__(self) -> str:
        """What the log says of a model that is ready: "on cpu (onnxruntime, fp32, 2 threads) in 0.02 s"."""
        return f"by backend '{self.config.backend}'"

    def is_current(self, source: Source) -> bool:
        """Building the version anew from `source` would give the same: its files and its config are what they were.

        Of a large config that takes milliseconds.
        """
        mine = self.source
        return (
            self.has_files_of(source)
            and _are_same_but_for_policy(mine.message, source.message)
            and mine.stamp.companions() == source.stamp.companions()
        )

    def has_files_of(self, source: Source) -> bool:
        """The version's own files are those of `source`, and lie where they lay."""
        files = self.source.stamp.versions.get(self.version, {})
        return self.source.folder == source.folder and files == source.stamp.versions.get(self.version, {})

    def close(self) -> None:
        """Free what it holds, where it is not to be assembled. May block."""


B = TypeVar("B", bound=Build)


class Backend(Protocol[B]):
    """Makes servables of one kind: tensor models, ensembles, Python models, transformers."""

    @property
    def honours(self) -> frozenset[str]:
        """The fields of `config.honour.FIELDS` that it obeys. A config that sets another of them is refused."""
        ...

    def needs(self, source: Source) -> Mapping[str, frozenset[int | None]]:
        """The models that must be ready before it is built, each with the versions that it needs; None is the newest.

        They are `source.parts` of what is configured and built. Reads nothing. From any thread.

        Raises:
            InvalidArgumentError: the config is wrong in itself.
        """
        ...

    def configure(self, source: Source, version: int) -> ModelConfig:
        """The completed configuration of a version: what the config leaves out is taken from the files.

        Reads files; compiles nothing. From any thread.

        Raises:
            InvalidArgumentError: the config is wrong, or disagrees with the files.
            UnsupportedError: this version or this machine does not do what the config asks.
        """
        ...

    def build(self, source: Source, version: int, previous: B | None, attempt: Attempt) -> B:
        """Everything slow: configure, compile, warm up, measure. In a worker thread; touches no shared state.

        Args:
            source: the model on disk.
            version: one of its versions.
            previous: the same version as it serves now, where this backend built it: what has not changed of it may be
                taken over. It goes on serving.
            attempt: gives it up. What is about to run for long is added to it.

        Raises:
            InvalidArgumentError: the config or a file is wrong.
            UnsupportedError: this version or machine does not do it.
            InternalError: a library failed otherwise.
            UnavailableError: it was given up.
        """
        ...

    def assemble(self, build: B, models: Models) -> Servable:
        """Make a build answer requests. Quick; on the event loop's thread. The servable owns the build.

        Args:
            build: made by `build`.
            models: all models that are served, for a servable that calls others.

        Raises:
            NoThreadError: the system has no thread for a worker. The build is the caller's then.
        """
        ...


def _are_same_but_for_policy(one: ModelConfigMessage, other: ModelConfigMessage) -> bool:
    # To copy takes many times as long as to compare, and no other thread runs meanwhile.
    if one == other or one.version_policy == other.version_policy:
        return one == other
    return _without_policy(one) == _without_policy(other)


def _without_policy(message: ModelConfigMessage) -> ModelConfigMessage:
    """A config less what chooses the versions, and says nothing of any of them."""
    result = ModelConfigMessage()
    result.CopyFrom(message)
    result.ClearField("version_policy")
    return result
