"""The page of a simulation, in Chromium: it shows every scheduler, asks nobody, and shows names as they are."""

from pathlib import Path

from support.browser import chromium, opened
from support.simulated import chip, model
from triune.core.units import Unit
from triune.planning.constants import constants
from triune.simulation.page import page_of
from triune.simulation.report import simulated
from triune.simulation.trace import Arrival

HOSTILE = "</script><script>document.title = 'taken'</script><img src=x onerror=alert(1)>"


def test_schedulers_and_names(tmp_path: Path) -> None:
    profiles = {HOSTILE: model(HOSTILE, {Unit.GPU: (0.5, 0.2), Unit.ANE: (0.2, 0.3)})}
    trace = [Arrival(index * 200_000, HOSTILE) for index in range(30)]
    (tmp_path / "page.html").write_text(page_of(simulated(trace, profiles, chip(), constants())), "utf-8")
    with chromium() as browser, opened(browser, (tmp_path / "page.html").as_uri()) as page:
        text = page.locator("main").inner_text()
        for each in ("simulated, not measured", "gpu alone", "round robin", "least loaded", "ane busy", HOSTILE):
            assert each in text
        assert page.title() == "Simulation"
