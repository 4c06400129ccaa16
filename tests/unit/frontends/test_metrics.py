import dataclasses
import math
import re
import time
from collections.abc import Sequence

import numpy as np
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from support.hand_server import HandServer
from triune.core.distributions import FIRST_RESPONSE_BUCKETS_MS, Distributions, Histogram
from triune.core.errors import InvalidArgumentError
from triune.core.statistics import FailureReason
from triune.core.units import Presence, Unit, UnitStatus
from triune.core.verdict import Verdict
from triune.frontends.metrics import machine
from triune.frontends.metrics.collector import MetricsCollector
from triune.frontends.metrics.machine import MachineMeter
from triune.frontends.metrics.options import MetricsOptions
from triune.frontends.metrics.text import write_text

UNITS = (
    UnitStatus(Unit.CPU, Presence.PRESENT),
    UnitStatus(Unit.ANE, Presence.EMULATED, reason="no Neural Engine here"),
    UnitStatus(Unit.GPU, Presence.ABSENT, reason="no GPU here"),
)


def scrape(server: HandServer, units: Sequence[UnitStatus] = ()) -> list[str]:
    return write_text(MetricsCollector(server, units).collect()).splitlines()  # type: ignore[arg-type]


@pytest.fixture
def server() -> HandServer:
    server = HandServer()
    server.models = {"identity": server.models["identity"]}
    return server


def test_inference_metrics_have_tritons_names_and_units(server: HandServer) -> None:
    counted = server.models["identity"].statistics
    counted.num_pending, counted.num_waiting = 7, 5
    counted.success.add(7_654_321, 3)
    counted.fail.add(999_000_000)
    counted.failures[FailureReason.REJECTED] = 2
    counted.queue.add(11_999, 3)
    counted.compute_input.add(22_000, 3)
    counted.compute_infer.add(33_000, 3)
    counted.compute_output.add(44_000, 3)
    counted.num_inferences, counted.num_executions = 12, 4
    lines = scrape(server)
    labels = '{model="identity",version="2"}'
    for line in (
        f"nv_inference_request_success{labels} 3",
        f"nv_inference_count{labels} 12",
        f"nv_inference_exec_count{labels} 4",
        f"nv_inference_request_duration_us{labels} 7654",
        f"nv_inference_queue_duration_us{labels} 11",
        f"nv_inference_compute_input_duration_us{labels} 22",
        f"nv_inference_compute_infer_duration_us{labels} 33",
        f"nv_inference_compute_output_duration_us{labels} 44",
        f"nv_inference_pending_request_count{labels} 5",
        'nv_inference_request_failure{model="identity",reason="REJECTED",version="2"} 2',
        'nv_inference_request_failure{model="identity",reason="CANCELED",version="2"} 0',
        'nv_inference_request_failure{model="identity",reason="BACKEND",version="2"} 0',
        'nv_inference_request_failure{model="identity",reason="OTHER",version="2"} 0',
        "# TYPE nv_inference_request_success counter",
        "# TYPE nv_inference_request_failure counter",
        "# TYPE nv_inference_pending_request_count gauge",
    ):
        assert line in lines
    assert not any("_total{" in line for line in lines)


def test_metrics_by_unit(server: HandServer) -> None:
    counted = server.models["identity"].statistics
    counted.record_execution(Unit.CPU, 8, 1, 0, 1_500_000_000, 0)
    counted.record_execution(Unit.AMX, 3, 1, 0, 500_000_000, 0)
    wrong = Verdict(precision="fp16", tolerance=0.05, largest=3.5, relative=1.0, excess="output 'y' is off by 3.5")
    counted.verdicts[Unit.AMX] = Verdict(precision="bf16", tolerance=0.25, largest=0.0078125, relative=0.01)
    counted.verdicts[Unit.GPU] = wrong
    counted.slowdowns.update({Unit.CPU: 1.0625, Unit.AMX: 2.5})
    counted.slowed.add(Unit.AMX)
    lines = scrape(server, UNITS)
    for line in (
        'triune_unit_inference_count{model="identity",unit="cpu",version="2"} 8',
        'triune_unit_inference_count{model="identity",unit="amx",version="2"} 3',
        'triune_unit_busy_seconds{model="identity",unit="cpu",version="2"} 1.5',
        'triune_unit_error_max{model="identity",unit="amx",version="2"} 0.0078125',
        'triune_unit_error_max{model="identity",unit="gpu",version="2"} 3.5',
        'triune_unit_refused{model="identity",unit="amx",version="2"} 0',
        'triune_unit_refused{model="identity",unit="gpu",version="2"} 1',
        'triune_unit_slowdown_ratio{model="identity",unit="amx",version="2"} 2.5',
        'triune_unit_slowed{model="identity",unit="amx",version="2"} 1',
        'triune_unit_present{presence="present",unit="cpu"} 1',
        'triune_unit_present{presence="emulated",unit="ane"} 0',
        'triune_unit_present{presence="absent",unit="gpu"} 0',
    ):
        assert line in lines
    # What was not measured has no sample: 0 would be a claim.
    assert 'triune_unit_error_max{model="identity",unit="cpu"' not in "\n".join(lines)


def test_machine_metrics(server: HandServer) -> None:
    collector = MetricsCollector(server, ())  # type: ignore[arg-type]
    values = {
        family.name: family.samples[0].value for family in collector.collect() if family.name.startswith("nv_cpu")
    }
    assert 0 < values["nv_cpu_memory_used_bytes"] < values["nv_cpu_memory_total_bytes"]
    assert 0 <= values.get("nv_cpu_utilization", 0) <= 1


def test_nothing_is_said_of_energy_and_gpus(server: HandServer) -> None:
    assert not [line for line in scrape(server, UNITS) if line.startswith(("nv_energy", "nv_gpu"))]


def test_family_without_samples_is_left_out(server: HandServer) -> None:
    server.models = {}
    names = {family.name for family in MetricsCollector(server, ()).collect()}  # type: ignore[arg-type]
    assert names - {"nv_cpu_utilization"} == {"nv_cpu_memory_total_bytes", "nv_cpu_memory_used_bytes"}


def test_metric_tags_are_labels(server: HandServer) -> None:
    model = server.models["identity"]
    config = dataclasses.replace(model.config, metric_tags={"team": 'a"b\\c\nd', "cost-centre": "7"})
    server.models = {"identity": dataclasses.replace(model, config=config)}
    text = write_text(MetricsCollector(server, UNITS).collect())  # type: ignore[arg-type]
    (family,) = [each for each in text_string_to_metric_families(text) if each.name == "nv_inference_exec_count"]
    assert family.samples[0].labels == {"model": "identity", "version": "2", "_team": 'a"b\\c\nd', "_cost_centre": "7"}


def test_tags_that_become_one_label_are_both_told(server: HandServer) -> None:
    model = server.models["identity"]
    config = dataclasses.replace(model.config, metric_tags={"a-b": "1", "a.b": "2"})
    server.models = {"identity": dataclasses.replace(model, config=config)}
    assert 'nv_inference_count{_a_b="1,2",model="identity",version="2"} 0' in scrape(server)


def test_prometheus_reads_the_text_as_it_was_meant(server: HandServer) -> None:
    collector = MetricsCollector(server, UNITS)  # type: ignore[arg-type]
    families = list(collector.collect())
    parsed = {family.name: family for family in text_string_to_metric_families(write_text(families))}
    for family in families:
        read = parsed[family.name]
        assert read.type == family.type
        assert [(sample.labels, sample.value) for sample in read.samples] == [
            (sample.labels, sample.value) for sample in family.samples
        ]


def test_numbers_and_help_in_the_text() -> None:
    family = Metric("m", "back\\slash and\nline", "gauge")
    for place, value in enumerate((1, 0.1, 1e300, math.inf, -math.inf, math.nan, 2**63)):
        family.add_sample("m", {"place": str(place)} if place else {}, value)
    assert write_text([family]).splitlines() == [
        "# HELP m back\\\\slash and\\nline",
        "# TYPE m gauge",
        "m 1",
        'm{place="1"} 0.1',
        'm{place="2"} 1e+300',
        'm{place="3"} +Inf',
        'm{place="4"} -Inf',
        'm{place="5"} NaN',
        'm{place="6"} 9223372036854775808',
    ]


def test_utilization_is_that_between_two_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter(
        [
            {"user": 10.0, "system": 5.0, "idle": 100.0, "iowait": 1.0, "guest": 2.0},
            {"user": 13.0, "system": 6.0, "idle": 115.0, "iowait": 2.0, "guest": 2.0},
            {"user": 13.0, "system": 6.0, "idle": 115.0, "iowait": 2.0, "guest": 2.0},
        ]
    )

    class Times:
        def _asdict(self) -> dict[str, float]:
            return next(readings)

    monkeypatch.setattr(machine.psutil, "cpu_times", Times)
    meter = MachineMeter(interval_seconds=0)
    assert meter.read().utilization == pytest.approx(4 / 20)
    assert meter.read().utilization is None, "no time passed: there is no figure"


def test_the_machine_is_read_once_in_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(machine.time, "monotonic", lambda: now)
    meter = MachineMeter(interval_seconds=2)
    first = meter.read()
    now = 101.9
    assert meter.read() is first
    now = 102.0
    assert meter.read() is not first


def options(*settings: str) -> MetricsOptions:
    return MetricsOptions.parse(settings, has_cpu=False, interval_seconds=2)


def test_summaries_are_tritons_over_the_last_minute(server: HandServer, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    counted = server.models["identity"].statistics
    counted.distributions = kept = Distributions(Histogram([100.0]))
    for latency_us in (900_000, *range(1, 101)):
        kept.record((latency_us * 1000, 2000, 3000, 4000, 5000), [], [])
        counted.success.add(latency_us * 1000)
        now = 1059.0 if latency_us == 900_000 else now
    now = 1060.5
    given = options("summary_latencies=true", "summary_quantiles=0.5:0.05,0.99:0.001")
    text = write_text(MetricsCollector(server, (), given).collect())  # type: ignore[arg-type]
    labels = 'model="identity",version="2"'
    lines = [each for each in text.splitlines() if each.startswith("nv_inference_request_summary_us")]
    assert lines == [
        f"nv_inference_request_summary_us_count{{{labels}}} 101",
        f"nv_inference_request_summary_us_sum{{{labels}}} 905050",
        f'nv_inference_request_summary_us{{{labels},quantile="0.5"}} 50.0',
        f'nv_inference_request_summary_us{{{labels},quantile="0.99"}} 99.0',
    ]
    assert f'nv_inference_compute_output_summary_us{{{labels},quantile="0.5"}} 5.0' in text.splitlines()
    now = 2000.0
    text = write_text(MetricsCollector(server, (), given).collect())  # type: ignore[arg-type]
    assert f'nv_inference_queue_summary_us{{{labels},quantile="0.5"}} NaN' in text.splitlines()
    assert "histogram_ms" not in text


def test_histograms_of_the_first_response_and_of_sizes(server: HandServer) -> None:
    counted = server.models["identity"].statistics
    counted.distributions = kept = Distributions(Histogram(FIRST_RESPONSE_BUCKETS_MS))
    strings = np.array([b"abc", b""], np.object_)
    for milliseconds in (100, 101, 6000):
        kept.record((milliseconds * 1_000_000, 0, 0, 0, 0), [np.zeros(32, np.float32), strings], [])
    given = options("histogram_latencies=true", "histogram_sizes=true")
    lines = write_text(MetricsCollector(server, (), given).collect()).splitlines()  # type: ignore[arg-type]
    labels = 'model="identity",version="2"'
    family = "nv_inference_first_response_histogram_ms"
    assert [each for each in lines if each.startswith(family)] == [
        f'{family}_bucket{{{labels},le="100"}} 1',
        f'{family}_bucket{{{labels},le="500"}} 2',
        f'{family}_bucket{{{labels},le="2000"}} 2',
        f'{family}_bucket{{{labels},le="5000"}} 2',
        f'{family}_bucket{{{labels},le="+Inf"}} 3',
        f"{family}_count{{{labels}}} 3",
        f"{family}_sum{{{labels}}} 6201.0",
    ]
    assert f'triune_request_input_bytes_bucket{{{labels},le="64"}} 0' in lines
    assert f'triune_request_input_bytes_bucket{{{labels},le="256"}} 3' in lines
    assert f"triune_request_input_bytes_sum{{{labels}}} 393.0" in lines
    assert f'triune_request_output_bytes_bucket{{{labels},le="64"}} 3' in lines


def test_batch_sizes_are_always_told(server: HandServer) -> None:
    counted = server.models["identity"].statistics
    for size in (1, 3, 3, 8):
        counted.record_execution(Unit.CPU, size, 1, 0, 0, 0)
    lines = [each for each in scrape(server) if each.startswith("triune_batch_size")]
    labels = 'model="identity",version="2"'
    assert lines == [
        f'triune_batch_size_bucket{{{labels},le="1"}} 1',
        f'triune_batch_size_bucket{{{labels},le="2"}} 1',
        f'triune_batch_size_bucket{{{labels},le="4"}} 3',
        f'triune_batch_size_bucket{{{labels},le="8"}} 4',
        f'triune_batch_size_bucket{{{labels},le="16"}} 4',
        f'triune_batch_size_bucket{{{labels},le="+Inf"}} 4',
        f"triune_batch_size_count{{{labels}}} 4",
        f"triune_batch_size_sum{{{labels}}} 15.0",
    ]


def test_metrics_can_be_left_out(server: HandServer) -> None:
    options = MetricsOptions.parse(["counter_latencies=false"], has_cpu=False, interval_seconds=2)
    text = write_text(MetricsCollector(server, (), options).collect())  # type: ignore[arg-type]
    assert "nv_cpu_" not in text
    assert "_duration_us" not in text
    assert "nv_inference_request_success" in text


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("counter_latencies", "format is <setting>=<value>"),
        ("=true", "format is <setting>=<value>"),
        ("counter_latencies=yes", "takes true or false"),
        ("counters=true", "there is no such setting; there are counter_latencies"),
        ("summary_quantiles=0.5", "'0.5' is not <quantile>:<error>"),
        ("summary_quantiles=0.5:0.05,1.5:0.1", "'1.5:0.1' is no"),
    ],
)
def test_metrics_config_that_means_nothing_is_refused(setting: str, reason: str) -> None:
    with pytest.raises(InvalidArgumentError, match=re.escape(reason)):
        MetricsOptions.parse([setting], has_cpu=True, interval_seconds=2)
