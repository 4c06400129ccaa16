"""ONNX files that are read without their large weights, in parts."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from support.examples import examples
from triune.core.errors import InvalidArgumentError
from triune.graph import read_light as reading
from triune.graph.all_tensors import tensors_of
from triune.graph.load import external_data, has_external_data, read_model
from triune.graph.read_light import read_light
from triune.graph.weight_files import LARGE_BYTES, array_of, load_data

WEIGHT = np.arange(LARGE_BYTES, dtype=np.float32).reshape(64, -1)


def product(*weights: TensorProto, num_nodes: int = 0) -> ModelProto:
    nodes = [helper.make_node("MatMul", ["x", each.name], [f"y{at}"]) for at, each in enumerate(weights)]
    nodes += [helper.make_node("Relu", ["x"], [f"r{at}"], name=f"relu {at}") for at in range(num_nodes)]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y0"))
    graph = helper.make_graph(nodes, "g", [x], [y], list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def field(number: int, value: bytes) -> bytes:
    """A field of a protobuf message with a length."""
    length, size = len(value), bytearray()
    while length > 127:
        size.append(length & 127 | 128)
        length >>= 7
    return bytes([number << 3 | 2, *size, length]) + value


def test_large_weights_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(product(*(numpy_helper.from_array(WEIGHT, f"w{at}") for at in range(9))).SerializeToString())
    read_bytes: list[int] = []
    pread = os.pread

    def noted(descriptor: int, num_bytes: int, offset: int) -> bytes:
        read_bytes.append(num_bytes)
        return pread(descriptor, num_bytes, offset)

    monkeypatch.setattr(os, "pread", noted)
    model = read_model(path)
    assert sum(read_bytes) < path.stat().st_size / 5
    assert not has_external_data(model, path)
    assert external_data(model, path) == {}
    for tensor in model.graph.initializer:
        assert tensor.data_location == TensorProto.EXTERNAL
        np.testing.assert_array_equal(array_of(tensor), WEIGHT)


def test_graphs_of_many_nodes_are_parsed_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = product(numpy_helper.from_array(WEIGHT, "w"), num_nodes=3000)
    whole.metadata_props.add(key="author", value="a test")
    (tmp_path / "model.onnx").write_bytes(whole.SerializeToString())
    sizes: list[int] = []

    class File(reading._File):  # pyright: ignore[reportPrivateUsage]
        def _parts(self, kind: str, start: int, end: int) -> Iterator[bytes]:
            for part in super()._parts(kind, start, end):
                sizes.append(len(part))
                yield part

    monkeypatch.setattr(reading, "_File", File)
    monkeypatch.setattr(reading, "_PART_BYTES", 1 << 13)
    model = read_light(tmp_path / "model.onnx")
    assert len(sizes) > 10
    assert max(sizes) < 2 << 13
    for tensor in model.graph.initializer:
        load_data(tensor)
    assert model == whole


_NUMBERS = st.integers(1, 40)


@st.composite
def _tensors(draw: st.DrawFn) -> TensorProto:
    array = np.arange(draw(_NUMBERS), dtype=draw(st.sampled_from([np.float32, np.int64, np.float64])))
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    if draw(st.booleans()):
        return numpy_helper.from_array(array, f"t{draw(_NUMBERS)}")
    return helper.make_tensor(f"t{draw(_NUMBERS)}", kind, array.shape, array.tolist())


@st.composite
def _graphs(draw: st.DrawFn, depth: int = 0) -> GraphProto:
    graph = GraphProto(name="g" * draw(st.integers(0, 40)), doc_string="d" * draw(st.integers(0, 40)))
    graph.initializer.extend(draw(st.lists(_tensors(), max_size=3)))
    for at in range(draw(st.integers(0, 4))):
        node = NodeProto(op_type="Op", input=["x"], output=[f"n{at}"], doc_string="n" * draw(st.integers(0, 40)))
        node.attribute.append(helper.make_attribute("floats", [0.5] * draw(st.integers(1, 40))))
        if draw(st.booleans()):
            node.attribute.append(helper.make_attribute("value", draw(_tensors())))
        if depth < 2 and draw(st.booleans()):
            node.attribute.append(helper.make_attribute("body", draw(_graphs(depth=depth + 1))))
        graph.node.append(node)
    return graph


@examples(200)
@given(graph=_graphs(), num_part_bytes=st.integers(1, 300))
def test_what_is_read_is_what_was_written(
    graph: GraphProto, num_part_bytes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("light") / "model.onnx"
    whole = ModelProto(ir_version=10, graph=graph, producer_name="p" * num_part_bytes)
    path.write_bytes(whole.SerializeToString())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "LARGE_BYTES", 64)
        patch.setattr(reading, "_PART_BYTES", num_part_bytes)
        patch.setattr(reading, "_WINDOW_BYTES", 32)
        model = read_light(path)
    for tensor in (*tensors_of(model), *tensors_of(whole)):
        tensor.CopyFrom(numpy_helper.from_array(array_of(tensor), tensor.name))
    assert model == whole


def test_graphs_that_are_nested_too_deep_are_refused(tmp_path: Path) -> None:
    text = product(numpy_helper.from_array(WEIGHT, "w")).graph.SerializeToString()
    for _ in range(1000):
        # The graph of an attribute of a node of a graph.
        for number in (6, 5, 1):
            text = field(number, text)
    (tmp_path / "model.onnx").write_bytes(field(7, text))
    with pytest.raises(InvalidArgumentError, match="is not an ONNX model"):
        read_model(tmp_path / "model.onnx")


def test_a_file_that_is_cut_short_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(product(numpy_helper.from_array(WEIGHT, "w")).SerializeToString())
    pread = os.pread

    def only_the_start(descriptor: int, num_bytes: int, offset: int) -> bytes:
        return b"" if offset else pread(descriptor, num_bytes, offset)

    monkeypatch.setattr(os, "pread", only_the_start)
    with pytest.raises(InvalidArgumentError, match="was cut short"):
        read_model(path)
