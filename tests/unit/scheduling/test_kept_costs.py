"""What was measured of a model's units is stored, and the next load begins with it."""

from pathlib import Path

import numpy as np
import pytest

from support.hand import Doubler, HandWorker
from triune.arbiter.cost import BatchCost
from triune.config.policy import BatchingPolicy
from triune.core.clock import VirtualClock
from triune.core.requests import InferenceRequest
from triune.core.servable import Call
from triune.core.statistics import ModelStatistics
from triune.core.units import Unit
from triune.scheduling.dispatcher import Dispatcher
from triune.scheduling.kept_costs import KeptCosts

MS = 1_000_000
ROW_MS = {Unit.CPU: 9, Unit.GPU: 2}


class Bench:
    def __init__(self, folder: Path) -> None:
        self.clock = VirtualClock()
        self.workers = [HandWorker(Doubler(unit), self.clock) for unit in ROW_MS]
        self.dispatcher = Dispatcher(
            "m",
            1,
            BatchingPolicy(max_batch_size=8, is_dynamic=True),
            ("y",),
            self.workers,
            ModelStatistics(),
            self.clock,
            kept={each: KeptCosts(folder / "batches" / f"{each.runner.unit.value}.json") for each in self.workers},
        )

    def run(self, *, num_rows: int = 1, row_ms: dict[Unit, int] = ROW_MS) -> Unit:
        """Have a request computed, and return where."""
        inputs = {"x": np.ones((num_rows, 1), np.float32)}
        self.dispatcher.submit(Call(InferenceRequest("m", inputs), inputs, num_rows))
        (worker,) = [each for each in self.workers if each.current is not None]
        worker.finish(row_ms[worker.runner.unit] * num_rows * MS)
        return worker.runner.unit


async def test_a_later_load_knows_the_fast_unit_at_once(tmp_path: Path) -> None:
    first = Bench(tmp_path)
    assert [first.run() for _ in range(7)].count(Unit.CPU) == 3, "each unit is measured first"
    await first.dispatcher.close()
    later = Bench(tmp_path)
    assert {later.run() for _ in range(5)} == {Unit.GPU}
    await later.dispatcher.close()


async def test_what_is_measured_now_corrects_what_was_stored(tmp_path: Path) -> None:
    first = Bench(tmp_path)
    for _ in range(7):
        first.run()
    await first.dispatcher.close()
    later = Bench(tmp_path)
    slow_now = {Unit.CPU: 9, Unit.GPU: 50}
    assert [later.run(row_ms=slow_now) for _ in range(12)][-1] is Unit.CPU
    await later.dispatcher.close()
    last = Bench(tmp_path)
    assert last.run() is Unit.CPU
    await last.dispatcher.close()


async def test_a_model_that_ran_too_little_stores_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.run()
    await bench.dispatcher.close()
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"batches": 3}',
        '{"batches": [3]}',
        '{"batches": [{"num_elements": 0, "ns": 1}]}',
        '{"batches": [{"num_elements": 1, "ns": NaN}]}',
        '{"batches": [{"num_elements": 1e999, "ns": 1}]}',
        '{"batches": [{"num_elements": true, "ns": 1}]}',
        "[" * 100_000,
    ],
)
def test_a_broken_file_is_told_and_not_used(tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "cpu.json"
    path.write_text(content)
    kept = KeptCosts(path)
    assert kept.found == []
    assert "measured again" in caplog.text
    kept.keep([BatchCost(2.0, 3.0)])
    assert KeptCosts(path).found == [BatchCost(2.0, 3.0)]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    KeptCosts(tmp_path / "file" / "cpu.json").keep([BatchCost(2.0, 3.0)])
    assert "set TRIUNE_CACHE to a folder that can be written" in caplog.text
