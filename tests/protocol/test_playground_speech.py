"""Speech on the page at `/`, in Chromium, with an endpoint for transcriptions that answers as a test says."""

import asyncio
import io
import wave
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from support.browser import chromium, fits, opened
from support.page_models import HOSTILE, PageModels
from support.text_server import serve_text
from triune.frontends.access import Api
from triune.frontends.playground import playground_routes
from triune.frontends.routes import ApiRoute


class Transcriber:
    """Answers with `answer`, with `error`, or, while `is_slow`, not before its client has left."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.is_slow = False
        self.num_left = 0
        self.error = ""
        self.answer: dict[str, Any] = {
            "text": f" Good morning. {HOSTILE}",
            "language": "en",
            "duration": 75.5,
            "segments": [{"start": 0.4, "text": " Good morning."}, {"start": 71.9, "text": f" {HOSTILE}"}],
            "triune": {"unit": "cpu", "runtime": "table", "precision": "fp32"},
        }

    async def transcribe(self, request: Request) -> Response:
        self.bodies.append(await request.body())
        while self.is_slow:
            if await request.is_disconnected():
                self.num_left += 1
                return Response()
            await asyncio.sleep(0.01)
        if self.error:
            return JSONResponse({"error": {"message": self.error}}, 400)
        return JSONResponse(self.answer)

    def routes(self, models: Any) -> Sequence[ApiRoute]:
        return [
            ApiRoute(Api.INFERENCE, "/v1/audio/transcriptions", self.transcribe, ("POST",)),
            *playground_routes(models),
        ]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def transcriber() -> Transcriber:
    return Transcriber()


@pytest.fixture
def url(transcriber: Transcriber) -> Iterator[str]:
    with serve_text(lambda: PageModels({}, listener="listener"), more_routes=transcriber.routes) as served:
        yield f"http://127.0.0.1:{served.port}/"


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((1, 2, 8000, 8000, "NONE", ""))
        file.writeframes(bytes(16000))
    (tmp_path / "morning.wav").write_bytes(content.getvalue())
    return tmp_path / "morning.wav"


def choose(page: Page, recording: Path) -> None:
    """Choose a file as a user does, who may choose the same one again."""
    with page.expect_file_chooser() as chooser:
        page.get_by_label("Choose a recording").click()
    chooser.value.set_files(recording)


def test_a_recording_is_written_down(browser: Browser, url: str, transcriber: Transcriber, recording: Path) -> None:
    with opened(browser, url, viewport={"width": 360, "height": 640}) as page:
        page.get_by_role("link", name="Speech").click()
        choose(page, recording)
        expect(page.locator(".segments li")).to_have_text(["0:00Good morning.", f"1:11{HOSTILE}"])
        said = page.locator("#speech-result .meta")
        for text in ("75.5 s of sound in", "times as fast", "language en", "cpu (table, fp32)"):
            expect(said).to_contain_text(text)
        assert page.title() == "Speech · Triune"
        assert fits(page)
        # One line, though the part is one more link.
        heights = page.locator("nav a").evaluate_all("links => links.map((each) => each.offsetHeight)")
        assert max(heights) < 45
        audio = page.locator("#speech-audio")
        expect(audio).to_be_visible()
        assert audio.evaluate("each => each.error") is None
        page.get_by_role("button", name="Play from 0:00").click()
        transcriber.answer["segments"] = []
        choose(page, recording)
        expect(page.locator("#speech-result")).to_contain_text("There is no speech in it.")
    (body, _) = transcriber.bodies
    assert recording.read_bytes() in body
    for name, value in (("model", b"listener"), ("response_format", b"verbose_json")):
        assert b'name="%s"\r\n\r\n%s\r\n' % (name.encode(), value) in body


def test_stop_and_errors(browser: Browser, url: str, transcriber: Transcriber, recording: Path) -> None:
    with opened(browser, url, allowed=["status of 400"]) as page:
        transcriber.is_slow = True
        page.get_by_role("link", name="Speech").click()
        choose(page, recording)
        expect(page.locator("#speech-result")).to_have_text("Listening ")
        page.get_by_role("button", name="Stop").click()
        expect(page.locator("#speech-result")).to_have_text("stopped")
        transcriber.is_slow = False
        transcriber.error = f"this is no sound {HOSTILE}"
        choose(page, recording)
        expect(page.get_by_role("alert")).to_have_text(f"Error this is no sound {HOSTILE}")
        expect(page.get_by_role("button", name="Stop")).to_have_count(0)


def test_the_part_is_not_shown_without_a_model(browser: Browser) -> None:
    with (
        serve_text(lambda: PageModels({}), more_routes=playground_routes) as served,
        opened(browser, f"http://127.0.0.1:{served.port}/") as page,
    ):
        expect(page.locator("#server-text")).to_have_text("triune 9.8.7")
        expect(page.get_by_role("link", name="Speech")).to_have_count(0)
