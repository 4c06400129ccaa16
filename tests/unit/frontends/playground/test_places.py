"""What the page learns of placements: requested, planned and observed, with the joules of each unit."""

from support.configs import model_config
from support.energy_meters import rail
from support.hand_server import ANSWER, VECTOR
from support.table_servable import TableServable
from triune.core.clock import VirtualClock
from triune.core.placement import PlacedSegment, Placement
from triune.core.units import Unit
from triune.frontends.playground.places import joules, places
from triune.hardware.energy.hand import HandMeter
from triune.hardware.energy.ledger import EnergyLedger
from triune.scheduling.models import LoadedVersion

PRECISIONS = {Unit.CPU: "fp32", Unit.ANE: "fp16"}


def loaded(placement: Placement | None = None) -> LoadedVersion:
    config = model_config([VECTOR], [ANSWER], name="m")
    return LoadedVersion(1, config, TableServable(), PRECISIONS, frozenset({Unit.ANE}), placement)


def test_a_cut_model_is_told_by_segment() -> None:
    first = PlacedSegment(
        Unit.CPU,
        "onnxruntime",
        "fp32",
        report="CPUExecutionProvider",
        requested=Unit.CPU,
        planned=Unit.ANE,
        num_ops=3,
        predicted_ms=1.5,
        measured_ms=2.5,
        notes=["ane refuses it"],
    )
    second = PlacedSegment(Unit.ANE, "coreml", "fp16", planned=Unit.ANE, num_ops=4)
    version = loaded(Placement("latency", is_cut=True, segments=[first, second], notes=["it is faster"]))
    counted = version.statistics
    parts = [(0, Unit.CPU, 2_000_000_000), (1, Unit.ANE, 1_000_000_000)]
    counted.record_execution(Unit.CPU, 4, 1, 0, 3_000_000_000, 0, parts)
    found = places(version)
    assert (found["requested"], found["is_cut"], found["notes"]) == ("latency", True, ["it is faster"])
    assert found["segments"][0] == {
        "requested": "cpu",
        "planned": "ane",
        "predicted_ms": 1.5,
        "unit": "cpu",
        "is_emulated": False,
        "runtime": "onnxruntime",
        "precision": "fp32",
        "report": "CPUExecutionProvider",
        "sample_ms": 2.5,
        "operations": 3,
        "notes": ["ane refuses it"],
        "busy_seconds": 2.0,
    }
    assert [each["busy_seconds"] for each in found["segments"]] == [2.0, 1.0]
    assert [each["is_emulated"] for each in found["segments"]] == [False, True]


def test_a_model_whose_backend_tells_nothing_has_its_units() -> None:
    found = places(loaded())
    assert [(each["unit"], each["precision"]) for each in found["segments"]] == [("cpu", "fp32"), ("ane", "fp16")]
    assert found["requested"] == "cpu"
    assert not found["is_cut"]
    assert "busy_seconds" not in found["segments"][0]


def test_joules_are_those_of_the_units_own_account_or_say_why_not() -> None:
    version = loaded()
    assert "--energy-interval-ms 0" in joules(version, Unit.CPU)["reason"]
    clock = VirtualClock()
    meter = HandMeter([rail("package"), rail("gpu", frozenset({Unit.GPU}))], clock)
    ledger = EnergyLedger(meter)
    accounts = {unit: ledger.account("m", 1, unit) for unit in (Unit.CPU, Unit.GPU)}
    version.statistics.accounts = accounts
    ledger.sample()
    work = accounts[Unit.CPU].begin_batch(clock.now_ns(), [])
    clock.advance(1_000_000_000)
    work.ended_ns = clock.now_ns()
    meter.feed("package", 5.0)
    meter.lose("gpu", "the GPU is lost")
    ledger.sample()
    assert joules(version, Unit.CPU) == {"kind": "measured", "joules": 5.0}
    assert joules(version, Unit.GPU) == {"kind": "unavailable", "reason": "the GPU is lost"}
