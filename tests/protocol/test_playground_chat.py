"""The chat of the page at `/`, in Chromium, with models whose answers stand in a table."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, Page, expect

from support.browser import chromium, fits, opened
from support.page_models import HOSTILE, CountedTable, PageModels
from support.text_server import TextServer, serve_text
from triune.core.errors import UnavailableError
from triune.core.statistics import FailureReason
from triune.frontends.access import Access
from triune.frontends.playground import playground_routes

SCRIPT = "<script>document.title = 'hacked'</script>"
STORY = "Once upon a time. " * 12


def tables() -> PageModels:
    answers = {
        "story": STORY,
        "riddle": f"<think>\nIt is {HOSTILE}.\n</think>\n\nAn egg.",
        "attack": f"{HOSTILE}{SCRIPT}[a](javascript:alert(1))",
        "break": ("Half of", UnavailableError(f"the unit is gone {HOSTILE}")),
    }
    models = {
        "teller": CountedTable(answers, tokens_per_delta=3),
        "mute": CountedTable({}, can_chat=False),
        f"{HOSTILE}x": CountedTable(answers),
    }
    return PageModels(models)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def served() -> Iterator[TextServer]:
    with serve_text(tables, more_routes=playground_routes) as running:
        yield running


@pytest.fixture
def page(browser: Browser, served: TextServer) -> Iterator[Page]:
    with opened(browser, f"http://127.0.0.1:{served.port}/") as made:
        expect(made.get_by_role("button", name="Send")).to_be_enabled()
        yield made


def say(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_role("button", name="Send").click()


def teller(served: TextServer) -> CountedTable:
    return served.models.models["teller"]


def pause(served: TextServer, *, is_paused: bool) -> None:
    """Let the model wait after its next token, or go on."""
    gate = teller(served).gate

    async def change() -> None:
        gate.clear() if is_paused else gate.set()

    served.run(change())


def test_an_answer_comes_as_a_stream_with_its_figures(page: Page, served: TextServer) -> None:
    assert page.get_by_role("combobox", name="Model").locator("option").all_text_contents() == ["teller", f"{HOSTILE}x"]
    pause(served, is_paused=True)
    say(page, "a story")
    answer = page.locator(".bubble.assistant .text")
    expect(answer).to_have_text("Onc")
    expect(page.get_by_role("log")).to_have_attribute("aria-busy", "true")
    pause(served, is_paused=False)
    expect(answer).to_have_text(STORY.strip())
    expect(page.get_by_role("log")).to_have_attribute("aria-busy", "false")
    expect(page.get_by_role("status")).to_have_text("The answer is complete.")
    meta = page.locator(".bubble .meta")
    expect(meta).to_contain_text(f"{len(STORY)} tokens ·")
    expect(meta).to_contain_text("tokens/s")
    expect(meta).to_contain_text("first token after")
    expect(meta).to_contain_text("cpu (table, fp32)")


def test_what_the_user_sets_reaches_the_model(page: Page, served: TextServer) -> None:
    for label, value in (("Temperature", "0.25"), ("Top p", "0.9"), ("Top k", "7"), ("Seed", "11")):
        page.get_by_label(label, exact=True).fill(value)
    page.get_by_label("Most tokens of an answer").fill("5")
    page.get_by_label("System prompt").fill("Be brief.")
    say(page, "a story")
    expect(page.locator(".bubble.assistant .text")).to_have_text("Once")
    expect(page.locator(".bubble .meta")).to_contain_text("cut at the limit of tokens · 5 tokens")
    (asked,) = teller(served).requests
    sampling = asked.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed) == (0.25, 0.9, 7, 11)
    assert asked.max_tokens == 5
    assert bytes(asked.prompt).decode().startswith('<system>Be brief.""\n<user>a story')


def test_stop_ends_the_generation_and_keeps_what_came(page: Page, served: TextServer) -> None:
    pause(served, is_paused=True)
    say(page, "a story")
    expect(page.locator(".bubble.assistant .text")).to_have_text("Onc")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".bubble .meta")).to_contain_text("stopped")
    expect(page.get_by_role("status")).to_have_text("Stopped.")

    async def until_closed() -> None:
        await asyncio.wait_for(teller(served).all_closed.wait(), 60)

    served.run(until_closed())
    pause(served, is_paused=False)
    say(page, "go on")
    expect(page.locator(".bubble.assistant .text").last).to_have_text(STORY.strip())
    assert "<assistant>Onc" in bytes(teller(served).requests[-1].prompt).decode()


def test_regenerate_replaces_the_last_answer(page: Page, served: TextServer) -> None:
    say(page, "hello")
    expect(page.locator(".bubble.assistant .text")).to_have_text("Yes.")
    teller(served).answers["hello"] = "No."
    page.get_by_role("button", name="Regenerate").click()
    expect(page.locator(".bubble.assistant .text")).to_have_text("No.")
    first, again = teller(served).requests
    assert first.prompt == again.prompt
    expect(page.get_by_role("button", name="Regenerate")).to_have_count(1)


def test_a_new_conversation_forgets_the_old_one(page: Page, served: TextServer) -> None:
    say(page, "hello")
    expect(page.locator(".bubble.assistant .text")).to_have_text("Yes.")
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator(".bubble")).to_have_count(0)
    say(page, "again")
    expect(page.locator(".bubble.assistant .text")).to_have_text("Yes.")
    assert b"hello" not in bytes(teller(served).requests[-1].prompt)


def test_a_new_conversation_in_mid_answer_gets_nothing_of_it(page: Page, served: TextServer) -> None:
    pause(served, is_paused=True)
    say(page, "a story")
    expect(page.locator(".bubble.assistant .text")).to_have_text("Onc")
    page.get_by_role("button", name="New conversation").click()
    pause(served, is_paused=False)
    say(page, "hello")
    expect(page.locator(".bubble.assistant .text")).to_have_text("Yes.")
    assert b"Onc" not in bytes(teller(served).requests[-1].prompt)


def test_errors_stand_in_the_conversation_in_the_servers_words(browser: Browser, served: TextServer) -> None:
    with opened(browser, f"http://127.0.0.1:{served.port}/", allowed=["status of 400"]) as page:
        say(page, "please break")
        expect(page.get_by_role("alert")).to_have_text(f"Error the unit is gone {HOSTILE}")
        expect(page.locator(".bubble.assistant .text")).to_have_text("Half of")
        page.get_by_role("button", name="New conversation").click()
        page.get_by_label("Temperature").fill("-1")
        say(page, "hello")
        expect(page.get_by_role("alert")).to_contain_text("temperature is -1")
        page.get_by_label("Temperature").fill("1")
        page.get_by_role("button", name="Regenerate").click()
        expect(page.locator(".bubble.assistant .text").last).to_have_text("Yes.")
        assert page.title() == "Chat · Triune"


def test_what_models_write_is_text(page: Page) -> None:
    page.get_by_role("combobox", name="Model").select_option(f"{HOSTILE}x")
    say(page, f"attack {SCRIPT}")
    expect(page.locator(".bubble.assistant .text")).to_have_text(f"{HOSTILE}{SCRIPT}[a](javascript:alert(1))")
    expect(page.locator(".bubble.user .text")).to_have_text(f"attack {SCRIPT}")
    expect(page.locator(".bubble.assistant h2")).to_have_text(f"{HOSTILE}x")
    page.get_by_role("link", name="Models").click()
    expect(page.get_by_role("rowheader", name=f"{HOSTILE} version 1 no such file {HOSTILE}")).to_be_visible()
    assert page.title() == "Models · Triune"
    assert page.locator("main img, main script, main a").count() == 0


def test_the_browser_itself_refuses_code_in_the_page(browser: Browser, served: TextServer) -> None:
    """If the page ever made markup of a text, the policy would still hold."""
    with opened(
        browser, f"http://127.0.0.1:{served.port}/", allowed=["Content Security Policy", "TrustedHTML"]
    ) as page:
        with pytest.raises(Exception, match="TrustedHTML"):
            page.evaluate("document.querySelector('main').innerHTML = '<b>bold</b>'")
        page.evaluate(
            """document.body.append(Object.assign(document.createElement('img'), {src: 'http://127.0.0.1:9/'}))"""
        )
        assert page.evaluate("document.images[document.images.length - 1].naturalWidth") == 0
        assert page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'asked', () => 'refused')") == "refused"


def test_the_list_of_models(page: Page, served: TextServer) -> None:
    page.get_by_role("link", name="Models").click()
    row = page.locator("#models-rows").get_by_role("row").filter(has_text="adder")
    for text in ("version 3", "ready", "amx bf16, emulated", "cpu fp32", "2 ms", "1 rejected"):
        expect(row).to_contain_text(text)
    expect(page.get_by_role("row").filter(has_text="idle")).to_contain_text("not loaded")
    expect(page.locator("#models-totals")).to_contain_text("4 of 6")
    requests = row.locator("[data-label=Requests]")
    expect(requests).to_have_text("3")

    async def count() -> None:
        served.models.adder.statistics.success.add(1_000_000, 1000)  # type: ignore[attr-defined]

    served.run(count())
    expect(requests).to_have_text("1,003")
    expect(row.locator("[data-label=Rate]")).not_to_have_text("0 /s")


def test_by_keyboard_alone(page: Page, served: TextServer) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    pressed = 0
    message = page.get_by_label("Message", exact=True)
    while message.evaluate("each => each !== document.activeElement"):
        page.keyboard.press("Tab")
        pressed += 1
        assert pressed < 12
    page.keyboard.type("a")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("story")
    pause(served, is_paused=True)
    page.keyboard.press("Enter")
    expect(page.locator(".bubble.user .text")).to_have_text("a\nstory", use_inner_text=True)
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Stop")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".bubble .meta")).to_contain_text("stopped")
    expect(message).to_be_focused()
    pause(served, is_paused=False)
    page.keyboard.press("Shift+Tab")
    expect(page.get_by_role("button", name="Regenerate")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".bubble.assistant .text")).to_have_text(STORY.strip())


def test_every_control_has_a_name(page: Page) -> None:
    for part in ("Chat", "Similarity", "Images", "Models"):
        page.get_by_role("link", name=part).first.click()
        expect(page.locator("nav [aria-current=page]")).to_have_text(part)
        for control in page.locator("input:visible, select:visible, textarea:visible, button:visible").all():
            named = control.evaluate("each => each.labels?.length || each.textContent.trim() || each.ariaLabel")
            assert named, control.evaluate("each => each.outerHTML")


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_on_a_phone(browser: Browser, served: TextServer, scheme: str) -> None:
    options = {"viewport": {"width": 360, "height": 640}, "color_scheme": scheme, "has_touch": True}
    with opened(browser, f"http://127.0.0.1:{served.port}/", **options) as page:
        long = "Donaudampfschifffahrtsgesellschaft" * 4
        say(page, f"a story {long}")
        expect(page.locator(".bubble .meta")).to_be_visible()
        page.get_by_text("Model and sampling").click()
        expect(page.get_by_label("Temperature")).to_be_visible()
        for part in ("Chat", "Similarity", "Images", "Models"):
            page.get_by_role("link", name=part).first.click()
            expect(page.locator("nav [aria-current=page]")).to_have_text(part)
            assert fits(page), part
        brightness = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        assert all(each < 60 for each in brightness) if scheme == "dark" else all(each > 200 for each in brightness)


def test_a_key_is_asked_for_and_forgotten(browser: Browser) -> None:
    rules = Access.of(keys=["rose-7Q"]).http
    with (
        serve_text(tables, rules=rules, more_routes=playground_routes) as served,
        opened(browser, f"http://127.0.0.1:{served.port}/", allowed=["status of 401"]) as page,
    ):
        field = page.get_by_label("API key", exact=True)
        field.fill("tulip-9")
        page.keyboard.press("Enter")
        expect(page.locator("#server-text")).to_have_text("key needed")
        page.get_by_role("button", name="API key").click()
        field.fill("rose-7Q")
        page.get_by_role("button", name="Use this key").click()
        expect(page.locator("#server-text")).to_have_text("triune 9.8.7")
        say(page, "hello")
        expect(page.locator(".bubble.assistant .text")).to_have_text("Yes.")
        assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
        assert field.input_value() == ""
        page.reload()
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#server-text")).to_have_text("key needed")


def test_who_reads_further_up_is_left_there(page: Page, served: TextServer) -> None:
    teller(served).answers["long"] = "line\n" * 400
    say(page, "long")
    log = page.get_by_role("log")
    expect(page.locator(".bubble .meta")).to_be_visible()
    at_end = "each => each.scrollHeight - each.scrollTop - each.clientHeight < 60"
    assert log.evaluate(at_end)
    pause(served, is_paused=True)
    say(page, "another long")
    expect(page.locator(".bubble.assistant .text").last).to_have_text("lin")
    assert log.evaluate(at_end)
    log.evaluate("each => each.scrollTo(0, 0)")
    # The page learns of it with the next frame.
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    pause(served, is_paused=False)
    expect(page.locator(".bubble .meta")).to_have_count(2)
    assert log.evaluate("each => each.scrollTop") == 0


def test_escape_stops_an_answer_which_is_no_error(page: Page, served: TextServer) -> None:
    pause(served, is_paused=True)
    say(page, "a story")
    expect(page.locator(".bubble.assistant .text")).to_have_text("Onc")
    page.get_by_label("Message", exact=True).press("Escape")
    expect(page.locator(".bubble .meta")).to_contain_text("stopped")

    async def count() -> None:
        teller(served).statistics.record_failure(FailureReason.CANCELED, 0)

    served.run(count())
    page.get_by_role("link", name="Models").click()
    errors = page.get_by_role("row").filter(has_text="teller").locator("[data-label=Errors]")
    expect(errors).to_have_text("01 canceled")
    expect(page.locator("#models-totals")).to_contain_text("1errors")


def test_a_number_that_is_none_is_not_sent(page: Page, served: TextServer) -> None:
    field = page.get_by_label("Temperature")
    field.fill("")
    field.press_sequentially("1e")
    say(page, "hello")
    expect(field).to_be_focused()
    expect(page.locator(".bubble.assistant")).to_have_count(0)
    field.fill("")
    say(page, "hello")
    expect(page.locator(".bubble.assistant .text")).to_have_text("Yes.")
    assert teller(served).requests[-1].sampling.temperature == 1


def test_a_server_that_is_gone_is_told(browser: Browser) -> None:
    with ExitStack() as stack:
        with serve_text(tables, more_routes=playground_routes) as served:
            url = f"http://127.0.0.1:{served.port}/"
            page = stack.enter_context(opened(browser, url, allowed=["ERR_CONNECTION_REFUSED"]))
            expect(page.locator("#server-text")).to_have_text("triune 9.8.7")
        expect(page.locator("#server-text")).to_have_text("not reachable")
        say(page, "hello")
        expect(page.get_by_role("alert")).to_have_text("Error the server cannot be reached: is it still running?")


def test_reasoning_is_folded_above_the_answer(page: Page) -> None:
    say(page, "riddle")
    answer = page.locator(".bubble.assistant")
    expect(answer.locator(".meta")).to_contain_text("tokens")
    expect(answer.locator(".text")).to_have_text("An egg.")
    thoughts = answer.locator(".thoughts p")
    expect(thoughts).to_be_hidden()
    answer.get_by_text("Reasoning").click()
    expect(thoughts).to_have_text(f"It is {HOSTILE}.")
    assert answer.locator("img").count() == 0
