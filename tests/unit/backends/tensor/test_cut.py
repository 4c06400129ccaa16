"""Models that are cut as their config says: compiled, checked, moved, compared, served."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from support.graphs import model_of
from support.repositories import Bench, NoModels, write_model
from triune.backends.attempt import Attempt
from triune.backends.registry import typed_failures
from triune.backends.tensor.backend import TensorBackend
from triune.backends.tensor.build import TensorBuild
from triune.backends.tensor.cut import make, pays, stretches
from triune.backends.tensor.cut.graph import cut_graph, without_path
from triune.backends.tensor.cut.stretches import Choice, Stretch
from triune.config.configure import read_source
from triune.config.model_config import ModelConfig
from triune.config.stamps import stamp
from triune.core.clock import MonotonicClock
from triune.core.energy import Bill
from triune.core.errors import InvalidArgumentError, TriuneError, UnavailableError, UnsupportedError
from triune.core.requests import InferenceRequest
from triune.core.servable import Call
from triune.core.units import Presence, Unit, UnitStatus
from triune.hardware.facts import UnitFacts
from triune.hardware.figures import Figure, FigureKind
from triune.hardware.measured import machine_key
from triune.planning.measured import MeasuredTime, keep_times, model_key
from triune.runtimes.described import times_folder
from triune.runtimes.machine import this_machine

UNITS = (Unit.CPU, Unit.AMX)
NODES = ("n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7")
OPERATORS = ("Neg", "Abs", "Sigmoid", "Neg", "Tanh", "Abs", "Neg", "Sqrt")


def chain() -> bytes:
    """y = sqrt(-abs(tanh(...))) and so on: a chain of eight operations, named n0 to n7."""
    values = ["x", *NODES[:-1]]
    lines = [f"{name} = {op}({given})" for name, op, given in zip(NODES, OPERATORS, values, strict=True)]
    text = "g (float[b,4] x) => (float[b,4] n7) {" + "  ".join(lines).replace("Sqrt(n6)", "Exp(n6)") + "}"
    model = model_of(text, opset=21)
    for node in model.graph.node:
        node.name = node.output[0]
    return model.SerializeToString()


def parameter(name: str, value: str) -> str:
    return f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }} '


def build(bench: Bench, path: Path, plan: str, more: str = "", attempt: Attempt | None = None) -> TensorBuild:
    write_model(path, "m", parameter("plan", plan) + more, v1=chain())
    source = read_source("m", path / "m", stamp(path / "m"))
    with typed_failures("m", 1):
        return TensorBackend(bench.machine, MonotonicClock()).build(source, 1, None, attempt or Attempt())


def operators(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node}


def refusing(bench: Bench, operator: str) -> None:
    """Have `amx` refuse models with an operator."""

    def look(path: Path) -> None:
        if operator in operators(path):
            raise UnsupportedError(f"no {operator} here")

    bench.openvino.on_load = look


def wrong(bench: Bench, monkeypatch: pytest.MonkeyPatch, operator: str) -> None:
    """Have `amx` compute models with an operator wrongly."""
    load = bench.openvino.load

    def loaded(path: Path, **given: Any) -> Any:
        executable = load(path, **given)
        if operator in operators(path):
            run = executable.run
            executable.run = lambda inputs, outputs: {name: each + 9 for name, each in run(inputs, outputs).items()}
        return executable

    monkeypatch.setattr(bench.openvino, "load", loaded)


def test_a_model_is_cut_where_its_config_says(tmp_path: Path) -> None:
    bench = Bench(num_cores=8)
    built = build(bench, tmp_path, "cpu to n2, amx")
    assert built.cut is not None
    assert built.executables == ()
    assert (built.config.units, built.precisions) == ((Unit.CPU, Unit.AMX), {Unit.CPU: "fp32", Unit.AMX: "bf16"})
    one, two = built.placement.segments
    assert (one.requested, one.unit, one.num_ops, one.first, one.last) == (Unit.CPU, Unit.CPU, 3, "n0", "n2")
    assert (two.requested, two.unit, two.num_ops, two.first, two.last) == (Unit.AMX, Unit.AMX, 5, "n3", "n7")
    assert one.error is None
    assert two.error is not None
    assert one.passed_bytes == 16
    assert set(built.verdicts) == {Unit.AMX}
    assert built.verdicts[Unit.AMX].largest == pytest.approx(two.error)
    assert "cut into 2 segments on cpu (3 operations, onnxruntime, fp32), amx (5 operations, openvino, bf16)" in str(
        built
    )
    assert (built.placement.requested, built.placement.is_cut) == ("cpu to n2, amx", True)
    # One segment runs at a time, so that each may use all cores.
    assert {each[2] for each in bench.openvino.loads} == {8}
    built.close()
    assert bench.num_open == 0


def test_the_files_of_the_segments_go_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    built = build(Bench(), tmp_path, "cpu to n2, amx")
    (folder,) = temporary.iterdir()
    assert sorted(each.name for each in folder.iterdir()) == ["piece-0.onnx", "piece-1.onnx"]
    built.close()
    assert list(temporary.iterdir()) == []


def test_the_cut_is_kept_although_it_does_not_pay_and_the_figures_say_so(tmp_path: Path) -> None:
    built = build(Bench(), tmp_path, "cpu to n2, amx")
    (note,) = built.placement.notes
    assert "measured: cut" in note
    assert "cpu alone" in note
    assert "amx alone" in note
    built.close()


def test_only_what_a_unit_refuses_moves(tmp_path: Path) -> None:
    bench = Bench()
    refusing(bench, "Tanh")
    built = build(bench, tmp_path, "amx")
    rows = built.placement.segments
    assert [(each.unit, each.first, each.last) for each in rows] == [
        (Unit.AMX, "n0", "n3"),
        (Unit.CPU, "n4", "n4"),
        (Unit.AMX, "n5", "n7"),
    ]
    assert (rows[1].requested, rows[1].planned) == (Unit.AMX, Unit.AMX)
    (note,) = rows[1].notes
    assert "amx refuses 1 operations from 'n4' on: no Tanh here; it moved to cpu" in note
    assert rows[0].notes == ()
    built.close()
    assert bench.num_open == 0


def test_only_what_a_unit_computes_wrongly_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    wrong(bench, monkeypatch, "Tanh")
    built = build(bench, tmp_path, "cpu to n0, amx")
    rows = built.placement.segments
    assert [each.unit for each in rows] == [Unit.CPU, Unit.AMX, Unit.CPU, Unit.AMX]
    assert rows[2].first == "n4"
    (note,) = rows[2].notes
    assert "amx (bf16) computes 1 operations from 'n4' on wrongly: output 'n4' is off by 9" in note
    built.close()
    assert bench.num_open == 0


def test_a_unit_that_refuses_everything_leaves_one_unit_for_the_whole(tmp_path: Path) -> None:
    bench = Bench()
    bench.openvino.on_load = lambda _: (_ for _ in ()).throw(UnsupportedError("broken driver"))
    built = build(bench, tmp_path, "amx to n3, cpu")
    assert built.cut is None
    assert [each.unit for each in built.executables] == [Unit.CPU]
    placement = built.placement
    assert not placement.is_cut
    assert any("amx refuses" in note and "broken driver" in note for note in placement.notes)
    assert "not cut, since the whole belongs on 'cpu'" in placement.notes[-1]
    built.close()
    assert bench.num_open == 0


def test_errors_that_add_up_move_the_worst_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each segment is within the tolerance, and all together are not."""
    bench = Bench()
    compare = make.compare_answers
    calls: list[bool] = []

    def once_wrong(*given: Any, **options: Any) -> Any:
        calls.append(True)
        found = compare(*given, **options)
        return replace(found, excess="output 'n7' is off by 7") if len(calls) == 1 else found

    monkeypatch.setattr(make, "compare_answers", once_wrong)
    built = build(bench, tmp_path, "amx to n2, cpu to n3, amx")
    assert len(calls) == 2
    moved = [note for each in built.placement.segments for note in each.notes]
    assert moved == ["together output 'n7' is off by 7, and the segment on amx has the largest error; it moved to cpu"]
    built.close()


@pytest.mark.parametrize(
    ("plan", "error", "words"),
    [
        ("cpu to nowhere, amx", InvalidArgumentError, "the operation 'nowhere', and there is none; there are .*more"),
        ("cpu to n5, amx to n2, cpu", UnsupportedError, "'n2' is not behind the stretch before"),
        ("cpu to n7, amx", UnsupportedError, "nothing is left behind the stretch before"),
    ],
)
def test_stretches_that_are_none(tmp_path: Path, plan: str, error: type[TriuneError], words: str) -> None:
    bench = Bench()
    with pytest.raises(error, match=words):
        build(bench, tmp_path, plan)
    assert bench.num_open == 0


def test_an_unmeasured_machine_has_no_plan_of_its_own(tmp_path: Path) -> None:
    bench = Bench()
    with pytest.raises(UnsupportedError, match="triune units --measure"):
        build(bench, tmp_path, "latency")
    assert bench.num_open == 0


def test_a_plan_for_a_chip_whose_units_are_one_here_is_the_whole_model(tmp_path: Path) -> None:
    bench = Bench()
    built = build(bench, tmp_path, "latency", parameter("plan_chip", "m2-pro"))
    assert built.cut is None
    assert [each.unit for each in built.executables] == [Unit.AMX]
    assert "not cut, since the whole belongs on 'amx', predicted" in built.placement.notes[-1]
    assert built.placement.requested == "latency"
    built.close()


@pytest.mark.parametrize(("goal", "best"), [("latency", Unit.AMX), ("latency", Unit.CPU), ("energy", Unit.CPU)])
def test_plans_for_this_machine_use_what_was_measured_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, goal: str, best: Unit
) -> None:
    monkeypatch.setenv("TRIUNE_CACHE", f"{tmp_path / 'cache'}")
    bandwidth = Figure(40, "GB/s", FigureKind.MEASURED, "measured here")
    rate = Figure(1, "TFLOPS", FigureKind.MEASURED, "measured here", basis="fp32")
    figures = {"memory_gb_per_s": bandwidth, "matmul_fp32_tflops": rate}
    facts = [UnitFacts(UnitStatus(unit, Presence.PRESENT), "Intel Xeon", figures=figures) for unit in UNITS]
    monkeypatch.setattr(stretches, "known_units", lambda runtimes: facts)
    write_model(tmp_path, "m", "", v1=chain())
    times = [
        MeasuredTime(unit, {"x": (rows, 4)}, 1.0 if unit is best else 50.0, 100, joules=1.0 if unit is best else 9.0)
        for unit in UNITS
        for rows in range(1, 33)
    ]
    keep_times(times_folder(), model_key(tmp_path / "m/1/model.onnx", machine_key(facts)), times)
    bench = Bench()
    built = build(bench, tmp_path, goal)
    assert [each.unit for each in built.executables] == [best]
    assert built.placement is not None
    assert f"the whole belongs on '{best.value}', predicted 1 ms" in built.placement.notes[-1]
    built.close()


def chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the planner choose `cpu` for the first four operations, and `amx` for the others."""
    found = [
        Stretch(0, 4, (Choice(Unit.CPU),), None, Unit.CPU, 1.0),
        Stretch(4, 8, (Choice(Unit.AMX), Choice(Unit.CPU)), None, Unit.AMX, 2.0),
    ]
    monkeypatch.setattr(make, "stretches_of", lambda *_: found)


def timed(monkeypatch: pytest.MonkeyPatch, cut_ms: float, **alone_ms: float) -> None:
    def period(executables: Any, *_: Any) -> float:
        first = executables[0]
        return cut_ms if hasattr(first, "segments") else alone_ms[first.unit.value]

    monkeypatch.setattr(pays, "period_ms", period)


def test_a_cut_that_pays_is_kept_with_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen(monkeypatch)
    timed(monkeypatch, 3.0, cpu=5.0, amx=4.0)
    bench = Bench()
    built = build(bench, tmp_path, "latency")
    assert built.cut is not None
    assert built.placement.notes == ("measured: cut 3 ms, amx alone 4 ms, cpu alone 5 ms",)
    assert [each.predicted_ms for each in built.placement.segments] == [1.0, 2.0]
    assert [each.requested for each in built.placement.segments] == [None, None]
    built.close()
    assert bench.num_open == 0


def test_a_cut_that_does_not_pay_is_left_out_with_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen(monkeypatch)
    timed(monkeypatch, 5.0, cpu=6.0, amx=4.0)
    bench = Bench()
    built = build(bench, tmp_path, "latency")
    assert built.cut is None
    assert [each.unit for each in built.executables] == [Unit.AMX]
    figures, why = built.placement.notes
    assert figures == "measured: cut 5 ms, amx alone 4 ms, cpu alone 6 ms"
    assert "not cut, since 'amx' alone is faster; operations of the cut: 4 on cpu" in why
    # The whole model was compiled once on each unit: what was measured is what serves.
    whole = tmp_path / "m/1/model.onnx"
    assert [each[0] for each in bench.openvino.loads].count(whole) == 1
    assert bench.num_open == 1
    built.close()
    assert bench.num_open == 0


def test_a_unit_whose_whole_is_wrong_is_no_rival(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen(monkeypatch)
    timed(monkeypatch, 5.0, cpu=6.0, amx=4.0)
    wrong(bench := Bench(), monkeypatch, "Sigmoid")
    built = build(bench, tmp_path, "latency")
    assert built.cut is not None
    assert "measured: cut 5 ms, cpu alone 6 ms; amx computes the whole wrongly: output 'n7'" in built.placement.notes[0]
    built.close()
    assert bench.num_open == 0


def test_a_build_that_is_given_up_frees_everything(tmp_path: Path) -> None:
    bench, attempt = Bench(), Attempt()
    bench.openvino.on_load = lambda _: attempt.give_up()
    with pytest.raises(UnavailableError):
        build(bench, tmp_path, "cpu to n2, amx", attempt=attempt)
    assert bench.num_open == 0


def test_a_warm_up_sample_passes_through_the_segments(tmp_path: Path) -> None:
    bench = Bench()
    sample = 'model_warmup { name: "w" batch_size: 3 inputs { key: "x" value { data_type: TYPE_FP32 dims: 4 '
    built = build(bench, tmp_path, "cpu to n2, amx", "max_batch_size: 4 " + sample + "random_data: true } } }")
    assert any(run[next(iter(run))].shape == (3, 4) for each in bench.openvino.executables for run in each.runs)
    built.close()


def served(bench: Bench, path: Path, plan: str, check: Callable[[Any, Call], Any]) -> None:
    """Serve a model, and check its servable, with a call of three rows."""
    built = build(bench, path, plan, "max_batch_size: 8 dynamic_batching { }")
    x = np.arange(12, dtype=np.float32).reshape(3, 4) / 8

    async def run() -> None:
        servable = TensorBackend(bench.machine, MonotonicClock()).assemble(built, NoModels())
        try:
            await check(servable, Call(InferenceRequest("m", {"x": x}), {"x": x}, 3))
        finally:
            await servable.close()

    asyncio.run(run())
    assert bench.num_open == 0


@pytest.mark.parametrize("plan", ["cpu to n2, amx", "throughput: cpu to n2, amx"])
def test_a_cut_model_answers_counts_and_names_its_units(tmp_path: Path, plan: str) -> None:
    bench = Bench()

    async def check(servable: Any, call: Call) -> None:
        call.bill = Bill()
        answer = await servable.submit(call)
        x = call.inputs["x"]
        expected = np.exp(-np.abs(np.tanh(-1 / (1 + np.exp(-np.abs(x))))))
        np.testing.assert_allclose(answer.outputs["n7"], expected, rtol=0.02)
        assert call.bill.units == {Unit.CPU: 3, Unit.AMX: 3}
        counted = servable.statistics
        assert counted.unit_inferences == {Unit.CPU: 3, Unit.AMX: 3}
        assert {number: each.count for number, each in counted.segments.items()} == {0: 1, 1: 1}
        assert counted.num_executions == 1
        assert len(servable.workers) == (2 if plan.startswith("throughput") else 1)
        other = InferenceRequest("m", dict(call.inputs), parameters={"triune_unit": "cpu"})
        with pytest.raises(InvalidArgumentError, match="is cut into segments on cpu, amx"):
            servable.submit(Call(other, call.inputs, 3))

    served(bench, tmp_path, plan, check)


def test_no_segment_begins_for_clients_that_have_left(tmp_path: Path) -> None:
    bench = Bench()

    async def check(servable: Any, call: Call) -> None:
        before = sum(len(each.runs) for each in bench.openvino.executables)
        running = asyncio.Event()
        loop = asyncio.get_running_loop()
        first_segment = next(each for each in reversed(bench.onnxruntime.executables) if not each.is_closed)
        goes_on = threading.Event()

        def wait() -> None:
            loop.call_soon_threadsafe(running.set)
            assert goes_on.wait(30)

        first_segment.on_run = wait
        future = servable.submit(call)
        await running.wait()
        future.cancel()
        await asyncio.sleep(0)
        goes_on.set()
        await servable.drain()
        assert sum(len(each.runs) for each in bench.openvino.executables) == before
        assert servable.statistics.segments[0].count == 1
        assert 1 not in servable.statistics.segments

    served(bench, tmp_path, "cpu to n2, amx", check)


def opened(path: Path, text: str) -> tuple[ModelConfig, Path]:
    write_model(path, "m", parameter("plan", "cpu"), v1=model_of(text, opset=21).SerializeToString())
    source = read_source("m", path / "m", stamp(path / "m"))
    return TensorBackend(this_machine(), MonotonicClock()).configure(source, 1), source.folder


def test_a_model_that_draws_random_numbers_is_cut(tmp_path: Path) -> None:
    config, folder = opened(
        tmp_path, "g (float[b,4] x) => (float[b,4] y) { a = Neg(x)  r = RandomNormalLike(a)  y = Add(a, r) }"
    )
    with cut_graph(config, folder, this_machine()) as graph:
        assert graph.is_random
        assert set(config.outputs) <= graph.values.keys()


def test_a_refusal_names_no_file_that_is_gone() -> None:
    error = UnsupportedError("cannot run '/gone/piece-0.onnx': why")
    found = without_path(error, Path("/gone/piece-0.onnx"), "3 operations")
    assert (type(found), f"{found}") == (UnsupportedError, "cannot run 3 operations: why")
