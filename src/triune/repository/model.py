"""The repository index: states of models and versions."""

from dataclasses import dataclass
from enum import Enum


class ModelState(Enum):
    """A model version's state, named as in Triton's repository index."""

    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"
    LOADING = "LOADING"
    UNLOADING = "UNLOADING"


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One line of the repository index.

    Attributes:
        name: the model.
        version: its version; None if no version was ever loaded or tried.
        state: the version's state; None if nothing has ever requested to load the model.
        reason: why the version is not ready. For a ready version, why it does not run on all of its units; empty if it
            does.
    """

    name: str
    version: int | None
    state: ModelState | None
    reason: str = ""
