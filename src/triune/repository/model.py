"""What the repository hands out: loaded versions, and what it says of those that are not."""

from dataclasses import dataclass
from enum import Enum

from triune.core.units import Unit
from triune.repository.config import ModelConfig
from triune.scheduling.dispatcher import Dispatcher
from triune.scheduling.statistics import ModelStatistics


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
        dispatcher: takes its requests.
        statistics: what the dispatcher counted since it was loaded.
        emulated: those of its units that are no hardware here.
    """

    version: int
    config: ModelConfig
    dispatcher: Dispatcher
    statistics: ModelStatistics
    emulated: frozenset[Unit] = frozenset()
