"""What is said of all models at the server's start."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from triune.config.limits import DEFAULT_LIMITS, ModelLimits

_DEFAULT_MAX_BATCH_SIZE = 4


@dataclass(frozen=True, slots=True)
class Completion:
    """How the configs of all models are read and completed: Triton's flags at the server's start.

    Attributes:
        default_max_batch_sizes: for models that can batch and whose config does not say, by backend, "" for all others
            (`--backend-config=BACKEND,default-max-batch-size=N`).
        is_off: a config.pbtxt must be there and say everything (`--disable-auto-complete-config`).
        config_name: models that have `configs/NAME.pbtxt` take it for their config.pbtxt (`--model-config-name`).
    """

    default_max_batch_sizes: Mapping[str, int] = field(default_factory=dict[str, int])
    is_off: bool = False
    config_name: str = ""

    def default_max_batch_size(self, backend: str) -> int:
        """The default of a backend: its own, or that of all, or Triton's 4."""
        sizes = self.default_max_batch_sizes
        return sizes.get(backend, sizes.get("", _DEFAULT_MAX_BATCH_SIZE))


DEFAULT_COMPLETION: Final = Completion()


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """What holds for all models whose configs do not say otherwise.

    Attributes:
        completion: how their configs are read and completed.
        limits: how long they may take, and how many of their requests wait.
        cache_bytes: what answers that are kept may take of the memory, of models whose config enables it; None keeps
            none.
        has_distributions: they keep how their latencies and sizes are distributed.
    """

    completion: Completion = DEFAULT_COMPLETION
    limits: ModelLimits = DEFAULT_LIMITS
    cache_bytes: int | None = None
    has_distributions: bool = False


DEFAULT_SETTINGS: Final = ModelSettings()
