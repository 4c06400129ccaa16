"""Refusal of random operators, which Core AI lacks."""

from triune.coreai.lowering.context import Context, Lowering
from triune.graph.conversion.problems import Refusal


def _random(_context: Context) -> None:
    raise Refusal("Core AI has no random numbers; make them outside the model and give them as an input")


TABLE: dict[str, Lowering] = {"RandomUniform": _random, "RandomNormal": _random}
