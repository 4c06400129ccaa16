"""The limits of a segment's free dimensions, for runtimes that convert models."""

from pathlib import Path

import numpy as np
import pytest

from support.graphs import model_of
from support.repositories import Bench, write_model
from triune.backends.tensor.cut.graph import CutGraph
from triune.backends.tensor.cut.recipe import segment_recipe
from triune.backends.tensor.cut.stretches import Choice
from triune.config.configure import configure, read_source
from triune.config.stamps import stamp
from triune.core.units import Unit
from triune.graph.inference import infer_shapes
from triune.graph.split import split

CHAIN = """g (float[b,n,4] x) => (float[b,n,4] y) { a = Neg(x)  c = Abs(a)  y = Exp(c) }"""


@pytest.mark.parametrize(
    ("is_named", "sample", "expected"),
    [
        (True, (1, 16, 4), "c=1..8,1..64,4"),
        # Without a name, a dimension is known by its size on the sample, if only one has that.
        (False, (1, 16, 4), "c=1..8,1..64,4"),
        (False, (16, 16, 4), None),
    ],
)
def test_limits(tmp_path: Path, is_named: bool, sample: tuple[int, ...], expected: str | None) -> None:
    bench = Bench()
    bench.openvino.option_names = ("openvino.shapes",)
    given = "parameters { key: 'openvino.shapes' value { string_value: 'x=1..8,1..64,4' } }"
    model = infer_shapes(model_of(CHAIN, opset=18))
    write_model(tmp_path, "m", f"max_batch_size: 8 {given}", v1=model.SerializeToString())
    config = configure(read_source("m", tmp_path / "m", stamp(tmp_path / "m")), 1, bench.machine)
    if not is_named:
        for value in model.graph.value_info:
            for dim in value.type.tensor_type.shape.dim[:2]:
                dim.ClearField("dim_param")
    x = np.zeros(sample, np.float32)
    graph = CutGraph(model, {"x": x}, {"x": x, "a": x, "c": x, "y": x}, is_random=False)
    last = split(model, [2])[-1]
    recipe = segment_recipe(last, Choice(Unit.AMX), 1, config, graph, bench.machine)
    assert dict(recipe.options).get("openvino.shapes") == expected
