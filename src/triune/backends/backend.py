"""The Backend protocol: it makes servables, which answer requests, from the files of a model."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from triune.backends.attempt import Attempt
from triune.config.configure import Source
from triune.config.model_config import ModelConfig
from triune.core.placement import Placement
from triune.core.servable import Servable
from triune.core.units import Unit
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.scheduling.models import Models


@dataclass(frozen=True, slots=True)
class Build:
    """A version that a backend has built and that does not answer requests yet. Each backend has a subclass.

    Attributes:
        version: the version's number.
        config: the completed configuration.
        source: the model on disk that the version was built from.
        emulated: the units of the model that are emulated.
        placement: where the version computes, and what its config requests; None if the backend does not report it.
    """

    version: int
    config: ModelConfig
    source: Source
    emulated: frozenset[Unit] = field(default=frozenset(), kw_only=True)
    placement: Placement | None = field(default=None, kw_only=True)

    @property
    def precisions(self) -> Mapping[Unit, str]:
        """The floating-point format on each unit of the model; empty for an ensemble."""
        return {}

    @property
    def shortfall(self) -> str:
        """Why the model does not run on all units of its config, for the repository index; usually empty."""
        return ""

    @property
    def cache_bytes(self) -> int:
        """The size in bytes of all caches that the version has allocated, even if they are empty; 0 if it has none."""
        return 0

    @property
    def adapter_names(self) -> Collection[str]:
        """The names of the version's LoRA adapters; empty if it has none."""
        return ()

    def process_bytes(self) -> int:
        """The memory of the version's worker processes, in bytes; 0 if it has none. May take milliseconds."""
        return 0

    def __str__(self) -> str:
        """The description of a ready model in the log: "on cpu (onnxruntime, fp32, 2 threads) in 0.02 s"."""
        return f"by backend '{self.config.backend}'"

    def is_current(self, source: Source) -> bool:
        """Whether a new build from `source` would be the same, because files and config are unchanged.

        Comparing a large config takes milliseconds.
        """
        mine = self.source
        return (
            self.has_files_of(source)
            and _are_same_but_for_policy(mine.message, source.message)
            and mine.stamp.companions() == source.stamp.companions()
        )

    def has_files_of(self, source: Source) -> bool:
        """Whether the files of the version in `source` are unchanged, and have the same path."""
        files = self.source.stamp.versions.get(self.version, {})
        return self.source.folder == source.folder and files == source.stamp.versions.get(self.version, {})

    def close(self) -> None:
        """Free a build that was not passed to `Backend.assemble`. May block."""


B = TypeVar("B", bound=Build)


class Backend(Protocol[B]):
    """Makes servables of one kind, such as tensor models or ensembles."""

    @property
    def supports(self) -> frozenset[str]:
        """The fields of `config.unsupported.FIELDS` that this backend supports. A config with any other of these fields
        is refused.
        """
        ...

    def needs(self, source: Source) -> Mapping[str, frozenset[int | None]]:
        """The models that must be ready before the build, each with the versions that are needed; None means the
        newest.

        Their configs are then in `source.parts`. Reads no files. May be called from any thread.

        Raises:
            InvalidArgumentError: the config is invalid.
        """
        ...

    def configure(self, source: Source, version: int) -> ModelConfig:
        """Complete the configuration of a version from its files.

        Reads files; compiles nothing. May be called from any thread.

        Raises:
            InvalidArgumentError: the config is wrong, or contradicts the files.
            UnsupportedError: Triune or this machine does not support what the config asks for.
        """
        ...

    def build(self, source: Source, version: int, previous: B | None, attempt: Attempt) -> B:
        """Do all slow work: configure, compile, warm up, measure. Runs in a worker thread, and changes no state that
        other threads use.

        Args:
            source: the model on disk.
            version: one of its versions.
            previous: the build of the same version that serves now, if this backend made it. It continues to serve, and
                the new build may share its unchanged parts.
            attempt: cancels the build. The backend must add objects that may run for long to it.

        Raises:
            InvalidArgumentError: the config or a file is wrong.
            UnsupportedError: Triune or this machine does not support it.
            InternalError: a library failed in another way.
            UnavailableError: the build was cancelled.
        """
        ...

    def assemble(self, build: B, models: Models) -> Servable:
        """Make the servable of a build, and give it the ownership of the build. Fast; runs on the event loop's thread.

        Args:
            build: a result of `build`.
            models: all models that are served, for a servable that calls other models.

        Raises:
            NoThreadError: the system cannot start a worker's thread. The caller still owns the build then.
        """
        ...


def _are_same_but_for_policy(one: ModelConfigMessage, other: ModelConfigMessage) -> bool:
    # Compare the configs as they are first: copying them takes much longer, and holds the GIL.
    if one == other or one.version_policy == other.version_policy:
        return one == other
    return _without_policy(one) == _without_policy(other)


def _without_policy(message: ModelConfigMessage) -> ModelConfigMessage:
    """A config without the version policy, which does not affect any single version."""
    result = ModelConfigMessage()
    result.CopyFrom(message)
    result.ClearField("version_policy")
    return result
