"""What the repository hands out: loaded versions, and what it says of those that are not."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from triune.config.model_config import ModelConfig
from triune.core.servable import Servable
from triune.core.statistics import ModelStatistics
from triune.core.units import Unit


class ModelState(Enum):
    """A model version's state, in the repository index's words."""

    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"
    LOADING = "LOADING"
    UNLOADING = "UNLOADING"


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One line of the repository index.

    Attributes:
        name: the model.
        version: its version; None for a model of which no version was ever tried.
        state: the version's state; None for a model that nobody asked to load.
        reason: why it is not ready; of one that is, why it is not so on all of its units, mostly empty.
    """

    name: str
    version: int | None
    state: ModelState | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class LoadedVersion:
    """A version of a model that answers requests.

    Attributes:
        version: its number, the folder's name.
        config: the completed configuration.
        servable: answers its requests.
        precisions: what it computes in on each of its units ("fp32", "bf16", "fp16"); empty if it has none of its own.
        emulated: those of its units that are no hardware here.
    """

    version: int
    config: ModelConfig
    servable: Servable
    precisions: Mapping[Unit, str] = field(default_factory=dict[Unit, str])
    emulated: frozenset[Unit] = frozenset()

    @property
    def statistics(self) -> ModelStatistics:
        """What its servable counted since it was loaded."""
        return self.servable.statistics
