"""Every runtime computes a segment of a model beside another runtime, and passes on what passes the border."""

from collections.abc import Sequence

import numpy as np
import pytest
from onnx import ModelProto

from contract.runtimes.conftest import Bench
from support.graphs import model_of
from triune.core.runtime import Executable
from triune.core.units import Unit
from triune.graph.inference import infer_shapes
from triune.graph.piece_folder import PieceFolder
from triune.graph.split import split
from triune.runtimes.reference import Reference
from triune.scheduling.segments.executable import Segment, SegmentedExecutable

W = ",".join(str((index % 7 - 3) / 8) for index in range(64))
V = ",".join(str((index % 5 - 2) / 4) for index in range(32))
FLOATS = f"""g (float[rows,8] x) => (float[rows,8] early, float[rows,4] y)
    <float[8,8] w = {{{W}}}, float[8,4] v = {{{V}}}> {{
    a = MatMul(x, w)
    early = Tanh(a)
    b = Abs(early)
    c = Add(a, b)
    d = MatMul(c, v)
    y = Sigmoid(d) }}"""
OTHERS = """g (float[rows,8] x, int64[rows] at) => (float[rows,8] y, int64[rows] next)
    <int64 one = {1}, float zero = {0}, int64 axis = {0}> {
    is_high = Greater(x, zero)
    next = Add(at, one)
    picked = Gather(x, at)
    mean = ReduceMean <keepdims = 0> (picked)
    is_large = Greater(mean, zero)
    chosen = If (is_large) <
        then_branch = t () => (float[rows,8] one_way) { one_way = Add(picked, x) },
        else_branch = e () => (float[rows,8] other_way) { other_way = Sub(picked, x) }>
    y = Where(is_high, chosen, picked) }"""


def cut(bench: Bench, model: ModelProto, borders: Sequence[int], first_is_reference: bool) -> SegmentedExecutable:
    """Segments that are in turn of the reference and of the runtime."""
    folder = bench.folder / f"pieces-{first_is_reference}-{len(borders)}"
    folder.mkdir()
    files, parts = PieceFolder(folder), list[Executable]()
    for number, piece in enumerate(split(model, borders)):
        is_reference = (number % 2 == 0) == first_is_reference
        options = {} if is_reference else bench.options(piece.model)
        path = files.save(piece)
        if is_reference:
            parts.append(Reference().load(path, unit=Unit.CPU, num_threads=1, options={}))
        else:
            parts.append(bench.load(path, **options))
    signature = Reference().inspect(bench.save(model))
    return SegmentedExecutable(signature, [Segment(each) for each in parts], 0, is_shared=False, close=lambda: None)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("first_is_reference", [True, False])
def test_segments_of_floats(bench: Bench, first_is_reference: bool) -> None:
    model = infer_shapes(model_of(FLOATS, opset=18))
    whole = Reference().load(bench.save(model), unit=Unit.CPU, num_threads=1, options={})
    segments = cut(bench, model, [1, 3, 4], first_is_reference)
    for rows in (1, 3):
        inputs = {"x": np.linspace(-1, 1, rows * 8, dtype=np.float32).reshape(rows, 8)}
        expected = whole.run(inputs, ["early", "y"])
        found = segments.run(inputs, ["early", "y"])
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, atol=0.02 if bench.unit is Unit.AMX else 1e-4)
            assert found[name].dtype == array.dtype


@pytest.mark.parametrize("border", range(1, 7))
def test_segments_with_integers_booleans_and_branches(bench: Bench, border: int) -> None:
    model = infer_shapes(model_of(OTHERS, opset=18))
    whole = Reference().load(bench.save(model), unit=Unit.CPU, num_threads=1, options={})
    inputs = {
        "x": np.linspace(-1, 2, 24, dtype=np.float32).reshape(3, 8),
        "at": np.array([2, 0, 1], np.int64),
    }
    expected = whole.run(inputs, ["y", "next"])
    found = cut(bench, model, [border], border % 2 == 0).run(inputs, ["y", "next"])
    np.testing.assert_allclose(found["y"], expected["y"], atol=0.05 if bench.unit is Unit.AMX else 1e-5)
    assert found["next"].tolist() == [3, 1, 2]
