"""Every kind of model that a repository serves is charged with the energy of its unit."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.configs import model_config
from support.encoder_models import write_encoder_model
from support.energy_meters import rail
from support.repositories import affine, write_model
from support.speech import GOFORWARD, write_whisper
from support.text_models import write_text_model
from triune.backends.machine_backend import Shared
from triune.config.model_config import TensorConfig
from triune.core.clock import MonotonicClock
from triune.core.datatypes import DataType
from triune.core.energy import Bill, EnergyKind, Phase, report_of
from triune.core.errors import InvalidArgumentError
from triune.core.power import Power
from triune.core.requests import InferenceRequest
from triune.core.servable import Call
from triune.core.units import Unit
from triune.engine.generation import Generation, Usage
from triune.engine.speech.segments import SpeechRequest
from triune.frontends.kserve.descriptions import statistics, statistics_with_energy
from triune.frontends.metrics.collector import MetricsCollector
from triune.frontends.metrics.text import write_text
from triune.hardware.energy.combined import AbsentMeter
from triune.hardware.energy.hand import HandMeter
from triune.hardware.energy.ledger import EnergyLedger
from triune.hardware.energy.meter import EnergyMeter
from triune.repository.repository import Repository
from triune.repository.settings import RepositorySettings
from triune.runtimes.machine import this_machine
from triune.scheduling.models import LoadedVersion
from triune.serving.server import Server
from triune.zoo.packages import PackageCache

CLOCK = MonotonicClock()
MEASURED = EnergyKind.MEASURED


class HandServable:
    """Answers nothing."""

    def __init__(self) -> None:
        self.futures: list[asyncio.Future[Any]] = []

    def submit(self, call: Call) -> asyncio.Future[Any]:
        assert call.bill is not None
        self.futures.append(asyncio.get_running_loop().create_future())
        return self.futures[-1]


class HandRepository:
    def __init__(self, servable: HandServable) -> None:
        self.power = Power()
        config = model_config([TensorConfig("x", DataType.FP32, (1, 4))], [], name="m")
        self.loaded = LoadedVersion(1, config, servable)  # type: ignore[arg-type]

    def get(self, name: str, version: int | None) -> LoadedVersion:
        return self.loaded


class Served:
    def __init__(self, server: Server, meter: Any, ledger: EnergyLedger) -> None:
        self.server, self.meter, self.ledger = server, meter, ledger

    def sample(self) -> None:
        """Read 100 J."""
        self.meter.feed("cpu", 100.0)
        self.ledger.sample()
        self.ledger.check()

    def joules(self, model: str) -> dict[tuple[Phase, EnergyKind], float]:
        (account,) = self.server.model(model).statistics.accounts.values()
        assert (account.model, account.version) == (model, 1)
        assert account.unit in (Unit.CPU, Unit.AMX)
        return dict(account.totals())


@asynccontextmanager
async def serving(root: Path, meter: EnergyMeter | None = None) -> AsyncIterator[Served]:
    meter = meter or HandMeter([rail("cpu")], CLOCK)
    ledger = EnergyLedger(meter)
    repository = Repository(RepositorySettings(folders=(root,)), this_machine(), CLOCK, shared=Shared(energy=ledger))
    await repository.open()
    yield Served(Server(repository), meter, ledger)
    await repository.close()


def tensors(model: str = "m") -> InferenceRequest:
    return InferenceRequest(model, {"x": np.ones((1, 4), np.float32)})


async def test_a_tensor_model(tmp_path: Path) -> None:
    write_model(tmp_path, "m", v1=affine(2.0))
    async with serving(tmp_path) as served:
        await served.server.infer(tensors())
        served.sample()
        assert 0 < served.joules("m")[Phase.INFER, MEASURED] < 100


async def test_an_answer_tells_its_joules_if_asked(tmp_path: Path) -> None:
    write_model(tmp_path, "m", v1=affine(2.0))
    async with serving(tmp_path) as served:
        served.meter.feed("cpu", 100.0)
        request = replace(tensors(), parameters={"triune_energy": True})
        response = await served.server.infer(request)
        assert response.parameters["triune_energy"] == "measured"
        assert response.parameters["triune_joules"] == pytest.approx(served.joules("m")[Phase.INFER, MEASURED])
        for parameters in ({}, {"triune_energy": False}):
            assert (await served.server.infer(replace(tensors(), parameters=parameters))).parameters == {}
        with pytest.raises(InvalidArgumentError, match="'triune_energy' must be true or false"):
            served.server.infer(replace(tensors(), parameters={"triune_energy": "yes"}))
        served.meter.lose("cpu", "the file is gone")
        response = await served.server.infer(request)
        assert response.parameters == {
            "triune_energy": "unavailable",
            "triune_energy_reason": "the file is gone",
            "triune_unit": "cpu",
        }


async def test_a_request_that_waits_for_its_joules_can_be_cancelled() -> None:
    hand = HandServable()
    server = Server(HandRepository(hand))  # type: ignore[arg-type]
    asked = InferenceRequest("m", {"x": np.ones((1, 4), np.float32)}, parameters={"triune_energy": True})
    at_once, later = server.infer(asked), server.infer(asked)
    at_once.cancel()
    await asyncio.sleep(0)
    later.cancel()
    await asyncio.gather(at_once, later, return_exceptions=True)
    assert [future.cancelled() for future in hand.futures] == [True, True]


async def test_an_encoder_whose_request_asks(tmp_path: Path) -> None:
    write_encoder_model(tmp_path / "m" / "1", pooling="mean")
    async with serving(tmp_path) as served:
        bill = Bill()
        await served.server.embedding_model("m").embed(["some text"] * 40, bill)
        served.sample()
        joules = served.joules("m")[Phase.INFER, MEASURED]
        assert await report_of([bill]) == {"kind": "measured", "joules": pytest.approx(joules)}
        assert sum(bill.units.values()) == 40


async def test_a_text_model_tells_what_each_answer_cost(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    write_text_model(tmp_path / "m" / "1")
    async with serving(tmp_path) as served:
        request = Generation("hello", max_tokens=5, is_end_ignored=True)

        async def usage() -> Usage:
            deltas = [delta async for delta in served.server.text_model("m").generate(request)]
            assert deltas[-1].usage is not None
            return deltas[-1].usage

        usages = await asyncio.gather(usage(), usage())
        served.sample()
        bills = [each.bill for each in usages if each.bill is not None]
        reports = [await report_of([bill]) for bill in bills]
        joules = served.joules("m")
        assert len(bills) == 2
        assert all(each["decode_joules"] > 0 for each in reports)
        assert sum(each["joules"] for each in reports) == pytest.approx(sum(joules.values()))
        assert set(joules) == {(Phase.PREFILL, MEASURED), (Phase.DECODE, MEASURED)}


async def test_a_transcript_tells_what_it_cost(tmp_path: Path, packages: PackageCache) -> None:
    pytest.importorskip("openvino")
    root = write_whisper(tmp_path, packages).parent
    async with serving(root) as served:
        model = served.server.speech_model("whisper")
        asked = SpeechRequest(bills=[])
        for request in (SpeechRequest(), asked):
            async with aclosing(model.transcribe(GOFORWARD.read_bytes(), request)) as segments:
                assert [segment async for segment in segments]
            served.sample()
        assert asked.bills is not None
        report = await report_of(asked.bills)
        counted: Counter[Phase] = Counter()
        for account in served.server.model("whisper").statistics.accounts.values():
            counted.update({phase: joules for (phase, _), joules in account.totals().items()})
        assert set(counted) == {Phase.ENCODE, Phase.PREFILL, Phase.DECODE}
        # Each transcript cost 100 J at most, and the other is none of its bills.
        assert report["kind"] == "measured"
        assert 0 < report["joules"] <= 100
        for phase, joules in counted.items():
            assert 0 < report[f"{phase.value}_joules"] < joules


async def test_statistics_and_metrics_tell_joules(tmp_path: Path) -> None:
    write_model(tmp_path, "m", v1=affine(2.0))
    async with serving(tmp_path) as served:
        await served.server.infer(tensors())
        served.sample()
        joules = served.joules("m")[Phase.INFER, MEASURED]
        (entry,) = statistics_with_energy(served.server.statistics())["model_stats"]
        assert entry["triune"] == {"energy": [{"unit": "cpu", "phase": "infer", "kind": "measured", "joules": joules}]}
        (plain,) = statistics(served.server.statistics())["model_stats"]
        assert entry == {**plain, "triune": entry["triune"]}
        lines = write_text(MetricsCollector(served.server, (), ledger=served.ledger).collect()).splitlines()
        labels = 'kind="measured",model="m",phase="infer",unit="cpu",version="1"'
        assert f"triune_energy_joules_total{{{labels}}} {joules!r}" in lines
        (status,) = served.ledger.rails
        labels = 'kind="measured",rail="cpu",unit="cpu"'
        assert f"triune_rail_energy_joules_total{{{labels}}} 100.0" in lines
        assert f"triune_rail_idle_joules_total{{{labels}}} {status.totals.idle!r}" in lines
        assert f"triune_power_watts{{{labels}}} {status.totals.watts!r}" in lines
        served.meter.lose("cpu", "the file is gone")
        served.ledger.sample()
        (entry,) = statistics_with_energy(served.server.statistics())["model_stats"]
        assert entry["triune"]["energy"][1:] == [{"unit": "cpu", "kind": "unavailable", "reason": "the file is gone"}]
        text = write_text(MetricsCollector(served.server, (), ledger=served.ledger).collect())
        assert "triune_power_watts{" not in text


async def test_what_no_meter_counts_has_a_reason_and_no_sample(tmp_path: Path) -> None:
    write_model(tmp_path, "m", v1=affine(2.0))
    async with serving(tmp_path, AbsentMeter({Unit.CPU: "no counters here"}, CLOCK)) as served:
        await served.server.infer(tensors())
        served.ledger.sample()
        (entry,) = statistics_with_energy(served.server.statistics())["model_stats"]
        assert entry["triune"]["energy"] == [{"unit": "cpu", "kind": "unavailable", "reason": "no counters here"}]
        text = write_text(MetricsCollector(served.server, (), ledger=served.ledger).collect())
        assert "joules" not in text
