"""The page of a tuning, in Chromium: a mark for each load, asks nobody, and shows names as they are."""

from pathlib import Path

from support.browser import chromium, opened
from support.tuned import Surface, axis, level
from triune.tuning.measurement import Objective
from triune.tuning.page import page_of
from triune.tuning.report import Tuning

HOSTILE = "</script><script>document.title = 'taken'</script><img src=x onerror=alert(1)>"


def test_configs_and_names(tmp_path: Path) -> None:
    surface = Surface(
        [axis(HOSTILE, "1", "2", "4", given="1")],
        lambda values: "it failed" if values[HOSTILE] == "4" else level(100 * int(values[HOSTILE]), 10),
    )
    found = surface.search(p99_ms=50)
    tuning = Tuning(
        HOSTILE, Objective.THROUGHPUT, 50, surface.axes, found, "", f"max_batch_size: 2 # {HOSTILE}", 9, ["a note"]
    )
    (tmp_path / "page.html").write_text(page_of(tuning), "utf-8")
    with chromium() as browser, opened(browser, (tmp_path / "page.html").as_uri()) as page:
        text = page.locator("main").inner_text()
        for each in ("100.0% better than the given config", "left out: it failed", "a note", f"# {HOSTILE}"):
            assert each in text
        assert page.locator("circle").count() == 2
        assert page.locator("line.limit").count() == 1
        assert page.locator("tr.best td").first.inner_text() == f"{HOSTILE}=2"
        assert page.title() == f"Tuning of {HOSTILE}"
