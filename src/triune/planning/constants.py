"""The constants of the cost model, which `benchmarks/planner.py` fits to published measurements: `constants.toml`."""

import functools
import importlib.resources
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from triune.core.errors import NotFoundError

_FEWEST_ROWS: Final = 8
"""A group of models has an error of its own if at least this many measurements (rows) are of such models."""

_GROUPS: Final[Mapping[str, str]] = {
    "all": "all models",
    "convolution": "convolutional networks",
    "encoder": "encoders",
    "diffusion": "diffusion models",
    "decode": "tokens of decoders",
    "prefill": "prompts of decoders",
    "kernel": "single operations",
}


@dataclass(frozen=True, slots=True)
class Score:
    """The error of predictions on measurements that were held out. Each measurement is predicted with constants that
    were fitted to the two thirds of the measurements that do not include it.

    Attributes:
        kind: "latency" or "joules".
        group: the class of the measured models, such as "network" or "decode"; "all" for all measurements.
        num_rows: the number of measurements.
        median: the median of |predicted - measured| / measured.
        ninth: the 90th percentile of |predicted - measured| / measured.
        rank: Spearman's rank correlation of predicted and measured; None for fewer than three measurements.
    """

    kind: str
    group: str
    num_rows: int
    median: float
    ninth: float
    rank: float | None

    @property
    def models(self) -> str:
        """A phrase for the class of the measured models, such as "encoders"."""
        return _GROUPS.get(self.group, self.group)


@dataclass(frozen=True, slots=True)
class Constants:
    """Fitted numbers by name ("ane.launch_ms"), and how well they predict.

    Attributes:
        numbers: the numbers.
        scores: the errors on measurements that were held out, each third of them in turn.
        source: what the numbers were fitted to.
    """

    numbers: Mapping[str, float]
    scores: tuple[Score, ...]
    source: str

    def get(self, name: str) -> float:
        """Return the number with this name.

        Raises:
            NotFoundError: no number has this name.
        """
        if name not in self.numbers:
            raise NotFoundError(f"constants.toml has no '{name}'; it has {', '.join(self.numbers)}")
        return self.numbers[name]

    def score(self, kind: str, group: str) -> Score | None:
        """The error of predictions for a group of models. If few measurements are of such models, it is the error over
        all measurements; None if there is none.
        """
        found = {each.group: each for each in self.scores if each.kind == kind}
        own = found.get(group)
        return own if own is not None and own.num_rows >= _FEWEST_ROWS else found.get("all")


@functools.cache
def constants() -> Constants:
    """The constants that Triune comes with."""
    file = importlib.resources.files("triune.planning") / "constants.toml"
    return parse_constants(file.read_text(encoding="utf-8"))


def parse_constants(text: str) -> Constants:
    """Read constants in the form that `benchmarks/planner.py` writes."""
    content: Mapping[str, Any] = tomllib.loads(text)
    numbers = {
        f"{unit}.{name}": float(number)
        for unit, table in content["constants"].items()
        for name, number in table.items()
    }
    scores = tuple(
        Score(
            each["kind"],
            each["group"],
            each["num_rows"],
            each["median"],
            each["ninth"],
            each.get("rank"),
        )
        for each in content.get("score", [])
    )
    return Constants(numbers, scores, content["source"])
