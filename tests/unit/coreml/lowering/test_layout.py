"""Transformers converted in the Neural Engine's layout."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from support.llama import exported_llama, llama_inputs
from support.lowered import check
from support.transformers import VOCABULARY, encoder, gpt2, hidden
from support.vision import Family, exported_vision, images
from triune.coreml.lowering import LowerOptions, lower
from triune.coreml.package import read_package
from triune.graph.conversion.options import Layout
from triune.graph.conversion.shapes import InputShape, Range


def ops_of(path: Path) -> Counter[str]:
    block = read_package(path).program.functions["main"].block
    return Counter(operation.op for operation in block.operations)


def test_gpt2_becomes_convolutions_einsums_and_norms_over_channels(tmp_path: Path) -> None:
    tokens = np.random.default_rng(1).integers(0, VOCABULARY, (2, 8))
    options = LowerOptions(shapes={"tokens": InputShape(((2, 8),))}, layout=Layout.ANE)
    check(gpt2(), {"tokens": tokens}, tmp_path, options)
    ops = ops_of(tmp_path / "m.mlpackage")
    # 9 linear layers; 2 products for each of 4 heads in each of 2 layers; the keys' 2 Transposes and the borders'.
    assert (ops["conv"], ops["einsum"], ops["layer_norm"], ops["transpose"]) == (9, 16, 5, 4)
    assert (ops["linear"], ops["matmul"], ops["reshape"], ops["rsqrt"]) == (0, 0, 0, 0)


def test_llama_becomes_convolutions_and_einsums(tmp_path: Path) -> None:
    inputs = llama_inputs(2, 6)
    shapes = {name: InputShape(((2, 6),)) for name in inputs}
    check(exported_llama("dynamo"), inputs, tmp_path, LowerOptions(shapes=shapes, layout=Layout.ANE), atol=1e-4)
    ops = ops_of(tmp_path / "m.mlpackage")
    # 7 linear layers in each of 2 layers and the last; 2 products for each of 4 heads.
    assert (ops["conv"], ops["einsum"], ops["softmax"], ops["linear"]) == (15, 16, 8, 0)
    assert (ops["reshape"], ops["transpose"]) == (0, 5)


def test_llama_of_ranges_of_shapes(tmp_path: Path) -> None:
    inputs = llama_inputs(2, 6)
    shapes = {name: InputShape(((Range(1, 2), Range(1, 16)),)) for name in inputs}
    check(exported_llama("dynamo"), inputs, tmp_path, LowerOptions(shapes=shapes, layout=Layout.ANE), atol=1e-4)
    assert ops_of(tmp_path / "m.mlpackage")["conv"] == 15


def test_ranges_of_shapes_keep_the_layout(tmp_path: Path) -> None:
    options = LowerOptions(shapes={"x": InputShape(((Range(1, 4), Range(1, 32), 32),))}, layout=Layout.ANE)
    check(encoder("stacked"), hidden(2, 7), tmp_path, options)
    ops = ops_of(tmp_path / "m.mlpackage")
    assert (ops["conv"], ops["einsum"], ops["transpose"]) == (2, 8, 3)


def test_what_was_done_is_told_only_when_asked_for(tmp_path: Path) -> None:
    shapes = {"x": InputShape(((1, 4, 32),))}
    lowered = lower(encoder("thirds"), tmp_path / "ane.mlpackage", LowerOptions(shapes=shapes, layout=Layout.ANE))
    assert lowered.layout is not None
    assert lowered.layout.counts()["linear_to_conv"] == 2
    plain = lower(encoder("thirds"), tmp_path / "plain.mlpackage", LowerOptions(shapes=shapes))
    assert plain.layout is None
    assert ops_of(plain.path)["linear"] == 2


@pytest.mark.parametrize("batch", ["batch", 2])
@pytest.mark.parametrize("family", ["dinov2", "clip"])
def test_vision_transformers_as_torch_exports_them(family: Family, batch: int | str, tmp_path: Path) -> None:
    shapes = {"pixels": InputShape(((Range(1, 4), 3, 16, 16),))} if batch == "batch" else {}
    check(
        exported_vision(family, batch), images(2), tmp_path, LowerOptions(shapes=shapes, layout=Layout.ANE), atol=1e-4
    )
    ops = ops_of(tmp_path / "m.mlpackage")
    # Two products for each of four heads in each of two layers.
    assert (ops["conv"], ops["einsum"], ops["reshape"], ops["matmul"]) == (13, 16, 1, 0)
