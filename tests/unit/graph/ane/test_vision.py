"""Vision transformers as torch exports them, whose views are by sizes computed from shapes."""

from collections import Counter

import numpy as np
import pytest
from onnx import ModelProto

from support.graphs import model_of, ops_of
from support.vision import Family, exported_vision, images
from triune.graph.ane import Report, ane_layout
from triune.graph.ane.known_shapes import KnownShapes
from triune.graph.check import compare, evaluate, sample_inputs
from triune.graph.normalize import normalize
from triune.graph.passes.fold import Fold
from triune.graph.passes.infer import Infer
from triune.graph.passes.tidy import Tidy
from triune.graph.values import Values


@pytest.mark.parametrize("batch", ["batch", 2])
@pytest.mark.parametrize("family", ["dinov2", "clip"])
def test_heads_are_put_side_by_side_by_sizes_that_are_computed(family: Family, batch: int | str) -> None:
    source = exported_vision(family, batch)
    report = Report()
    laid = ane_layout(normalize(source), report)
    counts = Counter(ops_of(laid))
    # Six linear layers in each of two, and the patches; four heads in each of two attentions.
    assert (counts["Conv"], counts["Softmax"], counts["MatMul"]) == (13, 8, 16)
    # The patches flattened; the keys of two layers and the border behind.
    assert (counts["Reshape"], counts["Transpose"], counts["Shape"]) == (1, 3, int(batch == "batch"))
    assert report.left == []
    for size in (1, 3) if batch == "batch" else (2,):
        for before, after in zip(evaluate(source, images(size)), evaluate(laid, images(size)), strict=True):
            np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)


def _known(text: str, num_changes: int) -> ModelProto:
    """The graph with its sizes written, which computes the same."""
    model = normalize(model_of(text))
    inputs = sample_inputs(model)
    expected, report = evaluate(model, inputs), Report()
    known = Infer()(Tidy()(Fold()(KnownShapes(report)(model))))
    assert report.counts().get(KnownShapes.name, 0) == num_changes
    compare(KnownShapes.name, expected, known, inputs)
    return known


_SIZES = """int64 zero = {0}, int64 one = {1}, int64[1] first = {0}, int64[1] rest = {-1}, int64[1] four = {4}"""
_COMPUTED = """e = Shape (x)  g = Gather (e, zero)  h = Gather (e, one)
               b = Unsqueeze (g, first)  s = Unsqueeze (h, first)"""


@pytest.mark.parametrize(
    ("given", "sizes", "expected"),
    [
        # Where a size was, the same one stays; -1 is for one that is elsewhere, or not known.
        ("float[N,S,2,4] x", "b, s, rest", [0, 0, 8]),
        ("float[N,S,2,4] x", "b, rest, four", [0, -1, 4]),
        ("float[N,S,2,4] x", "s, rest", None),
        ("float[2,S,2,4] x", "s, rest", [-1, 16]),
    ],
)
def test_sizes_of_a_reshape_are_written(given: str, sizes: str, expected: list[int] | None) -> None:
    rank = sizes.count(",") + 1
    dims = ",".join("UVW"[:rank])
    text = f"""agraph ({given}) => (float[{dims}] y) <{_SIZES}>
      {{ {_COMPUTED}  to = Concat <axis = 0> ({sizes})  z = Reshape (x, to)  y = Neg (z) }}"""
    known = _known(text, int(expected is not None))
    (reshape,) = (node for node in known.graph.node if node.op_type == "Reshape")
    array = Values(known.graph).constant(reshape.input[1])
    assert (None if array is None else array.tolist()) == expected


def test_a_zero_that_would_be_a_size_stays_computed() -> None:
    text = f"""agraph (float[N,S,2,4] x) => (float[U,V,W] y) <{_SIZES}> {{ {_COMPUTED}
      to = Concat <axis = 0> (b, s, four)  w = Concat <axis = 0> (b, s, rest)  z = Reshape <allowzero = 1> (x, w)
      y = Neg (z) }}"""
    known = _known(text, 1)
    assert not any(node.attribute for node in known.graph.node if node.op_type == "Reshape")


def test_sizes_of_an_expand_are_written_beside_those_that_are_free() -> None:
    text = f"""agraph (float[N,S,2,4] x, float[1,1,4] t) => (float[U,V,4] y) <{_SIZES}, int64[3] ones = {{1,1,1}},
      int64[3] none = {{-1,-1,-1}}> {{ {_COMPUTED}  to = Concat <axis = 0> (b, rest, rest)  is = Equal (to, none)
      w = Where (is, ones, to)  z = Expand (t, w)  y = Neg (z) }}"""
    known = _known(text, 1)
    assert list(Values(known.graph).shape("z") or ()) == [None, 1, 4]
    (expand,) = (node for node in known.graph.node if node.op_type == "Expand")
    (concat,) = (node for node in known.graph.node if expand.input[1] in node.output)
    assert concat.op_type == "Concat"
    # A second time changes nothing.
    again = Report()
    KnownShapes(again)(known)
    assert again.counts() == {}
