"""The Backend protocol: from a model's files to the servable that answers its requests."""

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
    """A version that a backend has built and that does not answer requests yet. Each backend has a subclass.

    Attributes:
        version: its number.
        config: the completed configuration.
        source: the model on disk that it was built from.
        emulated: its units that are emulated.
    """

    version: int
    config: ModelConfig
    source: Source
    emulated: frozenset[Unit] = field(default=frozenset(), kw_only=True)

    @property
    def precisions(self) -> Mapping[Unit, str]:
        """The floating-point format on each of its units; empty for an ensemble."""
        return {}

    @property
    def shortfall(self) -> str:
        """Why it does not run on all of its config's units; usually empty. The repository index shows it."""
        return ""

    def __str__(self) -> str:
        """The log's description of a ready model: "on cpu (onnxruntime, fp32, 2 threads) in 0.02 s"."""
        return f"by backend '{self.config.backend}'"

    def is_current(self, source: Source) -> bool:
        """Whether a new build from `source` would be the same, since files and config are unchanged.

        Comparing a large config takes milliseconds.
        """
        mine = self.source
        return (
            self.has_files_of(source)
            and _are_same_but_for_policy(mine.message, source.message)
            and mine.stamp.companions() == source.stamp.companions()
        )

    def has_files_of(self, source: Source) -> bool:
        """Whether the version's files in `source` are unchanged, at the same path."""
        files = self.source.stamp.versions.get(self.version, {})
        return self.source.folder == source.folder and files == source.stamp.versions.get(self.version, {})

    def close(self) -> None:
        """Free a build that is not assembled. May block."""


B = TypeVar("B", bound=Build)


class Backend(Protocol[B]):
    """Makes servables of one kind, such as tensor models or ensembles."""

    @property
    def honours(self) -> frozenset[str]:
        """The fields of `config.honour.FIELDS` that this backend supports. A config with another is refused."""
        ...

    def needs(self, source: Source) -> Mapping[str, frozenset[int | None]]:
        """The models that must be ready before the build, each with the needed versions; None is the newest.

        Their configs are then given as `source.parts`. Reads no files. From any thread.

        Raises:
            InvalidArgumentError: the config is invalid.
        """
        ...

    def configure(self, source: Source, version: int) -> ModelConfig:
        """The completed configuration of a version: missing fields are taken from the files.

        Reads files; compiles nothing. From any thread.

        Raises:
            InvalidArgumentError: the config is wrong, or contradicts the files.
            UnsupportedError: Triune or this machine does not support what the config asks for.
        """
        ...

    def build(self, source: Source, version: int, previous: B | None, attempt: Attempt) -> B:
        """Do all slow work: configure, compile, warm up, measure. Runs in a worker thread, without shared state.

        Args:
            source: the model on disk.
            version: one of its versions.
            previous: the build of the same version that serves now, if this backend made it. It goes on serving, and
                the new build may share its unchanged parts.
            attempt: cancels the build. Objects that may run for long are added to it.

        Raises:
            InvalidArgumentError: the config or a file is wrong.
            UnsupportedError: Triune or this machine does not support it.
            InternalError: a library failed in another way.
            UnavailableError: the build was cancelled.
        """
        ...

    def assemble(self, build: B, models: Models) -> Servable:
        """Make the servable of a build, and pass it the build's ownership. Fast; on the event loop's thread.

        Args:
            build: made by `build`.
            models: all models that are served, for a servable that calls others.

        Raises:
            NoThreadError: the system cannot start a worker's thread. The caller still owns the build then.
        """
        ...


def _are_same_but_for_policy(one: ModelConfigMessage, other: ModelConfigMessage) -> bool:
    # A copy takes much longer than a comparison, and holds the GIL.
    if one == other or one.version_policy == other.version_policy:
        return one == other
    return _without_policy(one) == _without_policy(other)


def _without_policy(message: ModelConfigMessage) -> ModelConfigMessage:
    """A config without the version policy, which does not affect any single version."""
    result = ModelConfigMessage()
    result.CopyFrom(message)
    result.ClearField("version_policy")
    return result
