"""Settings for all models, which are given when the server starts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from triune.config.limits import DEFAULT_LIMITS, ModelLimits

_DEFAULT_MAX_BATCH_SIZE = 4


@dataclass(frozen=True, slots=True)
class Completion:
    """How configs are read and completed, from Triton's command-line flags.

    Attributes:
        default_max_batch_sizes: the max_batch_size for each backend, for models that can batch and whose config sets
            none; the key "" is for all other backends (`--backend-config=BACKEND,default-max-batch-size=N`).
        is_off: whether every model needs a complete config.pbtxt (`--disable-auto-complete-config`).
        config_name: a name NAME. If a model has a file `configs/NAME.pbtxt`, it replaces config.pbtxt
            (`--model-config-name`).
    """

    default_max_batch_sizes: Mapping[str, int] = field(default_factory=dict[str, int])
    is_off: bool = False
    config_name: str = ""

    def default_max_batch_size(self, backend: str) -> int:
        """The default `max_batch_size` of a backend: the value for this backend, else the value for all backends, else
        Triton's default of 4.
        """
        sizes = self.default_max_batch_sizes
        return sizes.get(backend, sizes.get("", _DEFAULT_MAX_BATCH_SIZE))


DEFAULT_COMPLETION: Final = Completion()


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Defaults for all models; a model's config may override them.

    Attributes:
        completion: how configs are read and completed.
        limits: time limits and queue limits.
        cache_bytes: the memory of the response cache, which models use if their config enables it; None turns it off.
        has_distributions: whether statistics have histograms of latencies and sizes.
    """

    completion: Completion = DEFAULT_COMPLETION
    limits: ModelLimits = DEFAULT_LIMITS
    cache_bytes: int | None = None
    has_distributions: bool = False


DEFAULT_SETTINGS: Final = ModelSettings()
