"""What `triune generate` says of an answer when it is there."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from triune.api.answers import Answer
from triune.cli.text import tell_rate
from triune.core.units import Unit
from triune.engine.generation import Placement, Usage


class HandEngine:
    placement = Placement(Unit.GPU, "mlx", "bf16", "the test wants it")

    def __init__(self, energy: Mapping[str, Any]) -> None:
        self._energy = energy

    def energy(self, answer: Answer) -> Mapping[str, Any]:
        return self._energy


def told(energy: Mapping[str, Any]) -> str:
    answer = Answer("text", tuple(range(21)), "length", Usage(5, 0, 21, 0, 1_000_000_000, 2_000_000_000))
    console = Console(width=200)
    with console.capture() as said:
        tell_rate(answer, HandEngine(energy), console)  # type: ignore[arg-type]
    return said.get().strip()


def test_tokens_a_joule_where_joules_are_known() -> None:
    rate = "21 tokens, 20.0 a second, the first after 1.00 s; on gpu (mlx, bf16)"
    assert told({"kind": "measured", "joules": 6.0}) == f"{rate}; 3.5 tokens a joule (measured)"
    assert told({"kind": "estimated", "joules": 6.0}) == f"{rate}; 3.5 tokens a joule (estimated)"
    assert told({"kind": "unavailable", "reason": "no counters"}) == rate
