"""Which operations a unit refuses, and why: reads the rules in `rules.toml`, and tests operations by them.

The operations are those of ONNX graphs and of MIL programs. In both cases `Facts` describes an operation, and a rule
depends on nothing else.
"""

import functools
import importlib.resources
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from triune.core.errors import InternalError
from triune.core.units import Unit

Language: TypeAlias = Literal["onnx", "mil"]

NEWEST_TIER: Final = 5
"""The tier of the newest Neural Engines that rules know (M5 and later). Tiers number the generations of the Neural
Engine, from 1 (M1).
"""

_WIDE_FLOATS: Final = frozenset({"fp32", "fp64", "bf16"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The properties of an operation that rules depend on.

    Attributes:
        op: the operator's name, such as "Conv" in ONNX and "conv" in MIL.
        name: the name of its first result.
        dtype: the element type of an integer operand or result if there is one, else of the first result: "fp16",
            "fp32", "int32" or "bool".
        shapes: the shapes of its results; unknown sizes count as 1.
        kernel: the sizes of a convolution's kernel or a pool's window, the width last; empty for others.
        inner: the inner dimension of a matrix product; 0 for other operations.
        has_integers: whether it reads or writes integers that are computed when the model runs.
        has_computed_index: whether its indices, or the start of its slice, are computed when the model runs.
    """

    op: str
    name: str = ""
    dtype: str = "fp16"
    shapes: tuple[tuple[int, ...], ...] = ()
    kernel: tuple[int, ...] = ()
    inner: int = 0
    has_integers: bool = False
    has_computed_index: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: what a unit refuses.

    Attributes:
        name: the rule's name in messages and plans.
        unit: the unit that refuses.
        ops: the names of operations by language ("onnx", "mil"); "*" stands for all.
        when: the condition, a key of `CONDITIONS`.
        limit: the largest size that the unit supports; 0 if the condition compares no size.
        first_tier: the oldest tier of the Neural Engine for which the rule holds.
        last_tier: the newest tier for which the rule holds.
        reason: why the unit refuses, with the placeholders {op}, {name}, {dtype} and {size}.
        remedy: a change that would let the operation run on the unit; empty if there is none.
        source: the publication or test that observed this.
    """

    name: str
    unit: Unit
    ops: Mapping[Language, frozenset[str]]
    when: str
    limit: int
    first_tier: int
    last_tier: int
    reason: str
    remedy: str
    source: str

    def refuses(self, facts: Facts, language: Language, tier: int = NEWEST_TIER) -> str:
        """The reason why the unit refuses an operation; empty if this rule does not refuse it.

        Args:
            facts: the operation.
            language: the language of its name, ONNX or MIL.
            tier: the generation of the Neural Engine.
        """
        names = self.ops[language]
        if not self.first_tier <= tier <= self.last_tier or not ("*" in names or facts.op in names):
            return ""
        size = CONDITIONS[self.when](facts, self.limit)
        if not size:
            return ""
        return self.reason.format(op=facts.op, name=facts.name, dtype=facts.dtype, size=size)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a unit refuses an operation.

    Attributes:
        rule: the rule that refuses it.
        reason: the rule's reason, with the operation's own numbers.
    """

    rule: Rule
    reason: str


def refusal(facts: Facts, unit: Unit, language: Language, tier: int = NEWEST_TIER) -> Refusal | None:
    """Find the first rule by which a unit refuses an operation; None if no rule does."""
    for rule in rules():
        if rule.unit is unit and (reason := rule.refuses(facts, language, tier)):
            return Refusal(rule, reason)
    return None


@functools.cache
def rules() -> tuple[Rule, ...]:
    """All rules, in the order of the file."""
    content = _content()
    return tuple(_rule(each, content["sources"]) for each in content["rule"])


def tier_of(generation: str) -> int:
    """The tier of a chip's Neural Engine, from the chip's generation ("M2", "A17").

    Generations that are newer than the table count as the newest tier.
    """
    tiers: Mapping[str, int] = _content()["tiers"]
    if generation in tiers:
        return tiers[generation]
    family, number = generation[:1], generation[1:]
    known = [each for each in tiers if each[:1] == family]
    is_older = number.isdigit() and known and int(number) < min(int(each[1:]) for each in known)
    return 1 if is_older else NEWEST_TIER


@functools.cache
def _content() -> Mapping[str, Any]:
    file = importlib.resources.files("triune.hardware.rules") / "rules.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))


def _rule(table: Mapping[str, Any], sources: Mapping[str, str]) -> Rule:
    if table["when"] not in CONDITIONS:
        raise InternalError(f"rule '{table['name']}': there is no condition '{table['when']}'")
    return Rule(
        name=table["name"],
        unit=Unit(table["unit"]),
        ops={"onnx": frozenset(table["onnx"]), "mil": frozenset(table["mil"])},
        when=table["when"],
        limit=table.get("limit", 0),
        first_tier=table.get("from", 1),
        last_tier=table.get("until", NEWEST_TIER),
        reason=table["reason"],
        remedy=table["remedy"],
        source=sources[table["source"]],
    )


def _over(sizes: Sequence[int], limit: int) -> int:
    """The largest of the sizes if it exceeds the limit, else 0."""
    largest = max(sizes, default=0)
    return largest if largest > limit else 0


def _kernel_width(facts: Facts, limit: int) -> int:
    # A square kernel of a convolution may exceed the limit by one: Apple's compiler splits it.
    is_square = len(facts.kernel) > 1 and facts.kernel[-1] == facts.kernel[-2]
    is_conv = facts.op.lower().startswith("conv")
    return _over(facts.kernel[-1:], limit + 1 if is_square and is_conv else limit)


CONDITIONS: Final[Mapping[str, Callable[[Facts, int], int]]] = {
    "always": lambda facts, limit: 1,
    "wide_float": lambda facts, limit: int(facts.dtype in _WIDE_FLOATS),
    "integers": lambda facts, limit: int(facts.has_integers),
    "computed_index": lambda facts, limit: int(facts.has_computed_index),
    "kernel_width": _kernel_width,
    "kernel_height": lambda facts, limit: _over(facts.kernel[:-1], limit),
    "inner": lambda facts, limit: _over((facts.inner,), limit),
    "dimension": lambda facts, limit: _over([size for shape in facts.shapes for size in shape], limit),
    "plane": lambda facts, limit: _over([size for shape in facts.shapes for size in shape[-2:]], limit),
    "rank": lambda facts, limit: _over([len(shape) for shape in facts.shapes], limit),
}
"""The conditions of rules. Each takes the properties of an operation and a limit. It returns the size that exceeds the
limit, or 1 for a condition without a limit; 0 if the condition does not hold."""
