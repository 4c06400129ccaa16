"""What the repository says of its models."""

from dataclasses import dataclass
from enum import Enum


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
