"""Rules for operators that, before operator set 7, broadcast their second operand by an attribute `axis`."""

from collections.abc import Mapping

from triune.core.errors import InvalidArgumentError
from triune.graph.decompose.context import Context
from triune.graph.passes.upgrade.rule import Rule, rank_of, rewrite

_REMOVED = ("broadcast", "axis", "consumed_inputs")


def _binary(c: Context) -> None:
    """Align the second operand's first axis with `axis` of the first operand; without `axis`, align the last axes."""
    a, b = c.input(0), c.input(1)
    axis = c.attributes.get("axis")
    if not c.attributes.get("broadcast") or axis is None:
        rewrite(c, without=_REMOVED)
        return
    rank = rank_of(c, a)
    num_missing = rank - axis - rank_of(c, b)
    if axis < 0 or num_missing < 0:
        raise InvalidArgumentError(f"its operand '{b}' does not fit '{a}', of rank {rank}, from axis {axis} on")
    if num_missing and rank_of(c, b):
        b = c.build.op("Unsqueeze", b, c.build.ints(*range(rank - axis - num_missing, rank - axis)))
    rewrite(c, [a, b], without=_REMOVED)


def _prelu(c: Context) -> None:
    """Upgrade PRelu: a slope of one dimension belongs to axis 1, so axes of size 1 are added after it."""
    x, slope = c.input(0), c.input(1)
    num_following = rank_of(c, x) - 2
    if num_following > 0 and rank_of(c, slope) == 1:
        slope = c.build.op("Unsqueeze", slope, c.build.ints(*range(1, 1 + num_following)))
    rewrite(c, [x, slope], without=_REMOVED)


def _gemm(c: Context) -> None:
    rewrite(c, without=_REMOVED)


_BINARY = ("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less")

TABLE: Mapping[str, tuple[int, Rule]] = {
    **dict.fromkeys(_BINARY, (7, _binary)),
    "PRelu": (7, _prelu),
    "Gemm": (7, _gemm),
}
