"""The page of `triune optimize`, in Chromium."""

from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from playwright.sync_api import Browser, expect

import triune
from support.browser import chromium, fits, opened
from support.graphs import model_of

NUM_LAYERS = 300


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


def test_a_graph_of_a_thousand_nodes(browser: Browser, tmp_path: Path) -> None:
    lines = [
        f"e{n} = Exp(v{n}) t{n} = Transpose(e{n}) u{n} = Transpose(t{n}) v{n + 1} = Neg(u{n})"
        for n in range(NUM_LAYERS)
    ]
    text = f"g (float[2,3] v0) => (float[2,3] v{NUM_LAYERS}) {{ {' '.join(lines)} }}"
    onnx.save(model_of(text, opset=20), tmp_path / "<b>.onnx")
    triune.optimize(tmp_path / "<b>.onnx", tmp_path / "out.onnx", level="O1", page=tmp_path / "page.html")
    with opened(browser, (tmp_path / "page.html").as_uri()) as page:
        expect(page.get_by_role("heading", level=1)).to_have_text("<b>.onnx")
        expect(page.get_by_text("1200 → 600")).to_be_visible()
        expect(page.locator(".gone")).to_have_count(3 * NUM_LAYERS)
        expect(page.locator(".new")).to_have_count(NUM_LAYERS)
        page.locator(".gone").first.click()
        expect(page.get_by_role("status")).to_contain_text("gives  t0 [3, 2]")
        expect(page.locator(".linked").first).to_be_visible()
        assert fits(page)
        page.set_viewport_size({"width": 390, "height": 800})
        assert fits(page)


def test_nodes_whose_sizes_have_other_names_afterwards_are_equal(browser: Browser, tmp_path: Path) -> None:
    """All after the first change looked removed and added again."""
    text = """g (float[batch,n,4] x) => (float[batch,n,m] y)
        <float[3,4] w = {1,2,3,4,5,6,7,8,9,10,11,12}, int64[3] two = {0,-1,2}, int64[3] four = {0,-1,4}> {
        a = Reshape (x, two) b = Exp (a) r = Reshape (b, four)
        v = Transpose (w) p = MatMul (r, v) e = Sin (p) n = Neg (e) y = Softmax <axis = 1> (n) }"""
    model = model_of(text, opset=20)
    for name in ("r", "p", "e", "n"):
        model.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "n", None]))
    onnx.save(model, tmp_path / "model.onnx")
    triune.optimize(tmp_path / "model.onnx", tmp_path / "out.onnx", level="O1", page=tmp_path / "page.html")
    with opened(browser, (tmp_path / "page.html").as_uri()) as page:
        gone, new = (page.locator(each).all_text_contents() for each in (".gone", ".new"))
        assert [each.split("[")[0] for each in (*gone, *new)] == ["Transposev", "MatMulp", "MatMulp"]
        page.get_by_label("all nodes").check()
        assert not any("unk__" in each for each in page.locator(".cell").all_text_contents())
