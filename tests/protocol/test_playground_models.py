"""Similarity, pictures and speech on the page at `/`, in Chromium, with real models of the zoo."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from support.browser import chromium, fits, opened
from support.process import Served
from support.speech import GOFORWARD
from triune.zoo.packages import PackageCache
from triune.zoo.samples import read_picture


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser: Browser, real_models: Served) -> Iterator[Page]:
    with opened(browser, f"http://{real_models.http}/") as made:
        yield made


def test_similar_texts_are_near_each_other(page: Page) -> None:
    page.get_by_role("link", name="Similarity").click()
    page.get_by_label("Texts, one a line").fill(
        "A cat sits on the mat.\n\n  There is a cat on the rug.\n<b>The central bank</b> raised its interest rate.\n"
    )
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("rowheader")).to_have_text(
        [
            "1 A cat sits on the mat.",
            "2 There is a cat on the rug.",
            "3 <b>The central bank</b> raised its interest rate.",
        ]
    )
    values = [float(each) for each in page.locator(".cosines td").all_text_contents()]
    rows = [values[:3], values[3:6], values[6:]]
    assert [rows[place][place] for place in range(3)] == [1, 1, 1]
    assert rows[0][1] == rows[1][0] == pytest.approx(0.70, abs=0.011)
    assert max(rows[0][2], rows[1][2]) < 0.2
    expect(page.locator("#similarity-result .meta")).to_contain_text("384 dimensions")
    page.get_by_label("Texts, one a line").fill("alone")
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("alert")).to_have_text("Error two texts at least are needed; write one a line")


def test_a_picture_is_named(page: Page, tmp_path: Path) -> None:
    (tmp_path / "chelsea.png").write_bytes(read_picture("chelsea", PackageCache()))
    (tmp_path / "<img src=x onerror=alert(1)>.png").write_bytes(b"nonsense")
    page.get_by_role("link", name="Images").click()
    picture = page.get_by_label("Choose a picture")
    expect(picture).to_be_enabled()
    picture.set_input_files(tmp_path / "chelsea.png")
    labels = page.locator(".labels li")
    expect(labels.first).to_contain_text("Egyptian cat")
    expect(labels).to_have_count(5)
    # As examples/classify_image.py names it, whose bicubic filter gives 38%.
    share = float(re.findall(r"([\d.]+) %", labels.first.inner_text())[0])
    assert 30 < share < 45
    expect(page.get_by_role("img", name="What the model sees")).to_be_visible()
    page.get_by_label("Values of pixels").select_option("0 to 255")
    expect(labels.first).not_to_contain_text(f"{share} %")
    picture.set_input_files(tmp_path / "<img src=x onerror=alert(1)>.png")
    expect(page.get_by_role("alert")).to_contain_text("is no picture that this browser can read")
    assert page.locator("main img").count() == 0


def test_a_recording_is_written_down(page: Page) -> None:
    page.get_by_role("link", name="Speech").click()
    page.get_by_label("Choose a recording").set_input_files(GOFORWARD)
    expect(page.locator(".segments li")).to_contain_text("Go forward 10 meters.", timeout=60_000)
    expect(page.locator("#speech-result .meta")).to_contain_text("2.79 s of sound")


def test_parts_without_a_model_say_so(browser: Browser, served: Served) -> None:
    with opened(browser, f"http://{served.http}/") as page:
        expect(page.get_by_role("log")).to_contain_text("No model that is ready can chat")
        expect(page.get_by_role("button", name="Send")).to_be_disabled()


def test_on_a_phone(browser: Browser, real_models: Served, tmp_path: Path) -> None:
    (tmp_path / "chelsea.png").write_bytes(read_picture("chelsea", PackageCache()))
    with opened(browser, f"http://{real_models.http}/", viewport={"width": 360, "height": 640}) as page:
        page.get_by_role("link", name="Similarity").click()
        page.get_by_role("button", name="Compare").click()
        expect(page.locator(".cosines td")).to_have_count(16)
        assert fits(page)
        page.get_by_role("link", name="Images").click()
        page.get_by_label("Choose a picture").set_input_files(tmp_path / "chelsea.png")
        expect(page.locator(".labels li")).to_have_count(5)
        assert fits(page)
        page.get_by_role("link", name="Models").click()
        expect(page.locator("#models-rows tr").filter(has_text="efficientnet_lite0")).to_contain_text("images")
        assert fits(page)


def test_the_units_of_the_machine_are_shown(page: Page) -> None:
    page.get_by_role("link", name="Models").click()
    rows = page.locator("#units-rows tr")
    expect(rows).to_have_count(4)
    expect(rows.first).to_contain_text("cpu present")
    expect(rows.first.locator("[data-label=Power]")).to_have_text(re.compile(r"^(unavailable|\d+\.\d W.*)$"))
    expect(page.locator("#units-mode")).to_have_text("power mode balanced")


def test_placements_and_joules_are_shown(page: Page) -> None:
    page.get_by_role("link", name="Models").click()
    place = page.locator("#places-rows tr").filter(has_text="efficientnet_lite0").first
    expect(place.locator("[data-label=Observed]")).to_contain_text("onnxruntime says CPUExecutionProvider")
    expect(place.locator("[data-label=Planned]")).to_have_text("no plan")
    expect(place.locator("[data-label=Busy]")).to_have_text(re.compile(r"^\d+%$"))
    energy = re.compile(r"^(no meter here|[\d.]+ m?J.*|)$")
    expect(place.locator("[data-label=Energy]")).to_have_text(energy)
    row = page.locator("#models-rows tr").filter(has_text="efficientnet_lite0")
    expect(row.locator("[data-label=Energy]")).to_have_text(energy)
