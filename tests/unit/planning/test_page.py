"""The page of a plan, in Chromium: it opens by clicks, asks nobody, and shows names as they are."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from support.browser import chromium, fits, opened
from triune.hardware.chips import chip
from triune.hardware.rules import Facts
from triune.planning.candidates import Request
from triune.planning.constants import constants
from triune.planning.op import Op, OpClass
from triune.planning.page import page_of
from triune.planning.plan import Goal
from triune.planning.planner import plan
from triune.planning.published import decoders, vision
from triune.planning.units import target_of

HOSTILE = "</script><script>document.title = 'taken'</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


def saved(tmp_path: Path, ops: list[Op], title: str = "model", goal: Goal = Goal.LATENCY) -> str:
    path = tmp_path / "plan.html"
    path.write_text(
        page_of([plan(Request(title, ops, "convolution", goal), target_of(chip("M2 Pro"), constants()), constants())]),
        "utf-8",
    )
    return path.as_uri()


def test_segments_open_by_a_click(browser: Browser, tmp_path: Path) -> None:
    ops = vision.resnet_50().ops
    with opened(browser, saved(tmp_path, ops, goal=Goal.THROUGHPUT)) as page:
        boxes = page.locator(".segment")
        assert boxes.count() > 1
        expect(page.locator("g.op")).to_have_count(0)
        boxes.first.locator("button").click()
        expect(page.locator("g.op").first).to_be_visible()
        page.locator("g.op").first.click()
        expect(page.locator(".detail")).to_contain_text("predicted; bound by")
        boxes.first.locator("button").click()
        expect(page.locator("g.op").first).to_be_hidden()
        assert "predicted, not measured" in page.locator("main").inner_text()
        assert "side by side" in page.locator("main").inner_text()
        page.set_viewport_size({"width": 390, "height": 800})
        assert fits(page)


def test_plans_for_several_goals_stand_side_by_side(browser: Browser, tmp_path: Path) -> None:
    target, path = target_of(chip("M2 Pro"), constants()), tmp_path / "plan.html"
    ops = vision.resnet_50().ops
    requests = [Request(HOSTILE, ops, "convolution", goal) for goal in Goal]
    path.write_text(page_of([plan(each, target, constants()) for each in requests]), "utf-8")
    with opened(browser, path.as_uri()) as page:
        rows = page.locator(".comparison tr")
        expect(rows).to_have_count(4)
        expect(rows.nth(3)).to_contain_text(re.compile(r"^energy.* m?J"))
        expect(page.locator(".comparison h1")).to_have_text(f"{HOSTILE} on M2 Pro")


def test_a_thousand_operations(browser: Browser, tmp_path: Path) -> None:
    step = decoders.decoder_step("Llama-2-70B", 1, 512).ops
    ops = [*step, *(replace(op, name=f"{op.name}_again", inputs=(), outputs=()) for op in step[:200])]
    with opened(browser, saved(tmp_path, ops)) as page:
        for box in page.locator(".segment > button").all():
            box.click()
        expect(page.locator("g.op")).to_have_count(len(ops))
        assert len(ops) > 1000


def test_names_are_shown_as_they_are(browser: Browser, tmp_path: Path) -> None:
    facts = Facts(op="CumSum")
    op = Op(name=HOSTILE, op_type="CumSum", op_class=OpClass.REDUCE, read=1e6, written=1e6, facts=facts)
    with opened(browser, saved(tmp_path, [op], title=HOSTILE)) as page:
        page.locator(".segment > button").click()
        page.locator("g.op").click()
        assert HOSTILE in page.locator(".detail").inner_text()
        assert HOSTILE in page.locator("h1").inner_text()
        # Also where all of it takes less than a millisecond, the segments fill the bar of time.
        whole, part = page.locator(".time").bounding_box(), page.locator(".time button").bounding_box()
        assert whole is not None
        assert part is not None
        assert part["width"] > 0.99 * whole["width"] - 2
        assert page.title() == f"Plan of {HOSTILE} on M2 Pro"
        assert page.locator("img").count() == 0
