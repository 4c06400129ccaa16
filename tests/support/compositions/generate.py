"""Programs of two to four operators, drawn at random from a seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper

from support.compositions.bounds import session_of
from support.compositions.building import Growing, NotPossible, Value
from support.compositions.steps import FLOAT_STEPS, INTEGER_STEPS

_SHAPES = ((1, 4, 6, 6), (2, 3, 4, 5), (2, 4, 6), (3, 8), (1, 3, 1, 2), (5,), (1, 1, 2, 2), (12, 4, 6), (1, 8, 4, 4))
_TRIES = 200


@dataclass(frozen=True)
class Program:
    """A model and its inputs.

    Attributes:
        seed: the seed, from which the same program can be made again.
        steps: the kinds of operators, in order.
        model: of operator set 21.
        feeds: several sets of inputs, by a name that describes their numbers.
    """

    seed: int
    steps: tuple[str, ...]
    model: ModelProto
    feeds: Mapping[str, Mapping[str, Any]]

    @property
    def title(self) -> str:
        return f"{self.seed}: {' > '.join(node.op_type for node in self.model.graph.node)}"


def program(seed: int) -> Program:
    """Make the program of this seed: it has one or two inputs, two to four steps, and one or more outputs."""
    for attempt in range(_TRIES):
        found = _drawn(seed, attempt)
        # ONNX's inference accepts windows that are larger than the image, so the program is also run.
        if _runs(found):
            return found
    raise RuntimeError(f"no program of seed {seed} runs")


def _runs(drawn: Program) -> bool:
    try:
        session = session_of(drawn.model)
        for feed in drawn.feeds.values():
            session.run(None, dict(feed))
    except Exception:
        return False
    return True


def _drawn(seed: int, attempt: int) -> Program:
    g = Growing((seed, attempt))
    is_whole = g.is_lucky(0.2)
    first = g.input(
        g.number([TensorProto.INT32, TensorProto.INT64]) if is_whole else TensorProto.FLOAT, g.number(_SHAPES)
    )
    if g.is_lucky(0.15):
        g.input(first.elem_type, first.shape)
    last, steps, kept = first, list[str](), list[Value]()
    for _ in range(g.number([2, 2, 3, 3, 4])):
        name, last = _step(g, last)
        steps.append(name)
        if g.is_lucky(0.15):
            kept.append(last)
    outputs = list({each.name: each for each in (*kept, last)}.values())
    model = g.model(outputs)
    return Program(seed, tuple(steps), model, _feeds(model, g.rng))


def _step(g: Growing, value: Value) -> tuple[str, Value]:
    if not (value.is_float or value.is_integer):
        return "to floats", g.add("Cast", value, to=TensorProto.FLOAT)[0]
    table = FLOAT_STEPS if value.is_float else INTEGER_STEPS
    for _ in range(_TRIES):
        name = g.number(list(table))
        num_nodes, num_values = len(g.nodes), len(g.values)
        try:
            return name, table[name](g, value)
        except NotPossible:
            del g.nodes[num_nodes:], g.values[num_values:]
    raise RuntimeError(f"no step follows {value}")


def _feeds(model: ModelProto, rng: np.random.Generator) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for kind in ("moderate", "whole", "large", "special"):
        found[kind] = {value.name: _numbers(value, kind, rng) for value in model.graph.input}
    if all(value.type.tensor_type.elem_type != TensorProto.FLOAT for value in model.graph.input):
        del found["special"]
    return found


def _numbers(value: Any, kind: str, rng: np.random.Generator) -> Any:
    shape = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
    dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    if dtype.kind == "i":
        ends = {"moderate": 10, "whole": 1000}.get(kind, 40_000)
        return rng.integers(-ends, ends + 1, shape).astype(dtype)
    match kind:
        case "moderate":
            return rng.standard_normal(shape).astype(np.float32)
        case "whole":
            return rng.integers(-300, 301, shape).astype(np.float32)
        case "large":
            return (rng.standard_normal(shape) * 10.0 ** rng.integers(-6, 6, shape)).astype(np.float32)
        case _:
            special: Sequence[float] = (0.0, -0.0, np.inf, -np.inf, np.nan, 0.5, 1.5, -2.5, 41.0, 1e-12, 3e38)
            return rng.choice(np.array(special, np.float32), shape)
