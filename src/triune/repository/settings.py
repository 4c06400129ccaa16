"""Settings of a repository."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from triune.config.settings import DEFAULT_SETTINGS, ModelSettings
from triune.core.errors import InvalidArgumentError
from triune.hardware.memory import most_model_bytes

ALL_MODELS: Final = "*"
"""The startup model name that means all models."""


class ControlMode(Enum):
    """How models are loaded and unloaded while the server runs. The values are Triton's."""

    NONE = "none"
    EXPLICIT = "explicit"
    POLL = "poll"


@dataclass(frozen=True, slots=True)
class RepositorySettings:
    """The folders of models, and which models are served. Contradictory settings raise InvalidArgumentError.

    Attributes:
        folders: the folders of models, in Triton's layout. A model's name is unique over all of them.
        control_mode: NONE loads every model at the start, EXPLICIT loads on request, and POLL loads whenever folders
            change.
        startup_models: with EXPLICIT, the models to load at the start; `*` alone means all.
        poll_seconds: with POLL, the time between two polls.
        num_load_threads: the number of models that load at the same time.
        num_load_retries: how often a version that failed to load is tried again.
        model_memory_bytes: the memory that all models together may take; None means nine tenths of the machine's
            memory.
        models: defaults for all models.
    """

    folders: Sequence[Path]
    control_mode: ControlMode = ControlMode.NONE
    startup_models: Sequence[str] = ()
    poll_seconds: float = 15.0
    num_load_threads: int = 4
    num_load_retries: int = 0
    model_memory_bytes: int | None = None
    models: ModelSettings = DEFAULT_SETTINGS

    def __post_init__(self) -> None:
        """Raise InvalidArgumentError for contradictory settings."""
        if self.startup_models and self.control_mode is not ControlMode.EXPLICIT:
            raise InvalidArgumentError(
                "Use of '--load-model' requires setting '--model-control-mode=explicit' as well."
            )
        if ALL_MODELS in self.startup_models and len(self.startup_models) > 1:
            raise InvalidArgumentError("Wildcard model name '*' must be the ONLY startup model if specified at all.")
        if self.control_mode is ControlMode.POLL and not self.poll_seconds > 0:
            raise InvalidArgumentError(f"poll_seconds is {self.poll_seconds}; it must be above 0")

    def loads_all(self) -> bool:
        """Whether every model is loaded at the start."""
        return self.control_mode is not ControlMode.EXPLICIT or ALL_MODELS in self.startup_models

    def memory_budget_bytes(self) -> int:
        """The memory budget of all models, in bytes."""
        if self.model_memory_bytes is not None:
            return self.model_memory_bytes
        return most_model_bytes()

    def fixed_bytes(self) -> Mapping[str, int]:
        """Memory that counts against the budget besides the models, in bytes by name: the response cache at its largest
        size.
        """
        size = self.models.cache_bytes
        return {"the response cache": size} if size else {}
