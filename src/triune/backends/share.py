"""Makes the object by which a model takes turns on hardware that other models use too (`arbiter`)."""

from triune.arbiter.arbiter import Arbiter
from triune.arbiter.blocking import BlockingShare
from triune.config.model_config import ModelConfig
from triune.config.turns import weight_of
from triune.core.clock import Clock
from triune.core.units import Unit


def share_of(config: ModelConfig, unit: Unit, clock: Clock, arbiter: Arbiter | None) -> BlockingShare | None:
    """Make the `BlockingShare` with which a model, or a segment of a model, waits for its turns on the hardware of
    `unit`; None without an arbiter.
    """
    if arbiter is None:
        return None
    return BlockingShare(arbiter, clock, config.name, unit, weight_of(config.message))
