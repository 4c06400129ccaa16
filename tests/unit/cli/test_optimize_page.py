"""The page of `triune optimize`, in Chromium."""

from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from playwright.sync_api import Browser, expect

import triune
from support.browser import chromium, opened
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
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
