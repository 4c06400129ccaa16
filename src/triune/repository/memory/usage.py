"""The measured memory and load time of a model that was loaded before."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from triune.config.stamps import FileStamps
from triune.core.statistics import ModelStatistics
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.repository.memory.arrivals import ArrivalPattern
from triune.repository.memory.estimate import estimate


@dataclass(frozen=True, slots=True)
class Measured:
    """The measured memory of a version.

    Attributes:
        files: the fingerprints of the version's files at the load.
        message: the model's config at the load.
        num_bytes: the bytes that the version was charged with after the load.
    """

    files: FileStamps
    message: ModelConfigMessage
    num_bytes: int


@dataclass(slots=True)
class Usage:
    """The loads and uses of a model. Times in ns are those of the server's clock.

    Attributes:
        load_ns: how long the last load took, without waiting for room; 0 if it was never loaded.
        loaded_ns, loaded_ms: when the model was loaded last, in ns of the clock, and in milliseconds since 1970.
        touched_ns: when a front end last looked the model up without sending a request.
        num_unloaded: how often the model was unloaded to make room.
        num_loaded_ahead: how often the model was loaded before a request needed it.
        num_refused: how often a load was refused because there was no room.
        measured: the memory of its versions.
        pattern: the times at which the model was used, recorded once any model was unloaded to make room.
    """

    load_ns: int = 0
    loaded_ns: int = 0
    loaded_ms: int = 0
    touched_ns: int | None = None
    num_unloaded: int = 0
    num_loaded_ahead: int = 0
    num_refused: int = 0
    measured: dict[int, Measured] = field(default_factory=dict[int, Measured])
    pattern: ArrivalPattern = field(default_factory=ArrivalPattern)
    _seen: dict[int, int] = field(default_factory=dict[int, int])

    def was_used(self, counted: Sequence[ModelStatistics]) -> bool:
        """Whether requests have arrived or ended since the last call, or are pending.

        Args:
            counted: the statistics of the versions. A version that is loaded again has new ones, which begin at 0.
        """
        now = {id(each): each.success.count + each.fail.count for each in counted}
        is_used = any(each.num_pending for each in counted) or any(
            count > self._seen.get(key, 0) for key, count in now.items()
        )
        self._seen = now
        return is_used

    def expected_bytes(self, message: ModelConfigMessage, version: int, files: FileStamps) -> int:
        """The expected memory of a version, in bytes: its measured memory, or else an estimate."""
        known = self.measured_bytes(message, version, files)
        return known if known is not None else estimate(message, files)

    def measured_bytes(self, message: ModelConfigMessage, version: int, files: FileStamps) -> int | None:
        """The measured memory of a version in bytes, if it was measured with the same files and config; else None."""
        known = self.measured.get(version)
        return known.num_bytes if known is not None and known.files == files and known.message == message else None
