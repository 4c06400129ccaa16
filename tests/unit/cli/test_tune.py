"""`triune tune`, as a command, on a tiny model."""

import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from support.repositories import affine, write_model
from triune.api import planning, tuning
from triune.cli import app
from triune.config.parse import parse_text
from triune.core.errors import AlreadyExistsError, InvalidArgumentError, NotFoundError, TriuneError, UnsupportedError
from triune.core.units import Presence, Unit, UnitStatus
from triune.hardware.facts import UnitFacts
from triune.hardware.figures import Figure, FigureKind
from triune.planning.measured import MeasuredTime
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.tuning.measurement import LoadLevel, Measurement
from triune.tuning.trial import Subject

PAGE = Path(__file__).parents[3] / "docs" / "tune.md"
CONFIG = "# As its author wrote it.\nmax_batch_size: 8\ndynamic_batching { }\n"


class MadeUp:
    """Trials that measure nothing: batches of up to 32 rows are faster."""

    def __init__(self, subject: Subject) -> None:
        self._callers = subject.callers

    def measure(self, message: ModelConfigMessage, seconds: float, limit_seconds: float) -> Measurement:
        assert 0 < seconds < limit_seconds
        size = min(message.max_batch_size, 32)
        levels = [LoadLevel(n, 1000, 10.0 * size * n, 0.5 * n, float(n)) for n in self._callers]
        return Measurement(levels, times=[MeasuredTime(Unit.CPU, {"x": (2, 4)}, 64 / size, 100)])

    def close(self) -> None: ...


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "models", "double", CONFIG, v1=affine())


def run(*arguments: object) -> str:
    command = ["tune", *map(str, arguments)]
    done = CliRunner(env={"COLUMNS": "240"}).invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_real_model_within_a_budget(model: Path, tmp_path: Path) -> None:
    budget, text = 4, ""
    while not text and budget < 600:
        try:
            text = run(
                model, f"--budget={budget}s", "--callers=1,4", "--html", tmp_path / "page.html", "-o", tmp_path / "out"
            )
        except InvalidArgumentError as error:
            # The least depends on how busy the machine is.
            (least,) = re.findall(r"the least that is needed is (\d+) s", str(error))
            budget = max(int(least), 2 * budget)
    assert "the given config" in text
    assert ("no gain: kept" in text) != ("better than the given config" in text)
    written = (tmp_path / "out" / "config.pbtxt").read_text()
    assert written.startswith("# As its author wrote it.")
    assert ("no gain" in text) == (written == CONFIG)
    assert "default-src 'none'" in (tmp_path / "page.html").read_text()


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "Trials", MadeUp)


@pytest.mark.usefixtures("made_up")
def test_the_best_config_is_the_given_one_with_what_was_tuned(model: Path, tmp_path: Path) -> None:
    text = run(model, "-o", tmp_path)
    assert "the best is 300.0% better than the given config" in text
    assert "max_batch_size=32" in text
    written = (tmp_path / "config.pbtxt").read_text()
    assert written == CONFIG.replace("8", "32")
    with pytest.raises(AlreadyExistsError, match="--force"):
        run(model, "-o", tmp_path)
    run(model, "-o", tmp_path, "--force")
    assert (model / "config.pbtxt").read_text() == CONFIG
    assert "the whole config.pbtxt:\n# As its author" in run(model)


@pytest.mark.usefixtures("made_up")
def test_a_plan_for_this_machine_is_corrected_by_what_was_measured(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = "measured here on 2026-12-01"
    figures = {
        "matmul_fp32_tflops": Figure(0.2, "TFLOPS", FigureKind.MEASURED, here, basis="fp32"),
        "memory_gb_per_s": Figure(40, "GB/s", FigureKind.MEASURED, here),
    }
    facts = UnitFacts(UnitStatus(Unit.CPU, Presence.PRESENT), "Abacus", figures=figures)
    monkeypatch.setenv("TRIUNE_CACHE", str(tmp_path / "cache"))
    for module in (tuning, planning):
        monkeypatch.setattr(module, "known_units", lambda: [facts])

    def planned(rows: int) -> str:
        options = ["plan", str(model / "1" / "model.onnx"), "--shape", f"x={rows},4"]
        done = CliRunner(env={"COLUMNS": "240"}).invoke(app, options, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    assert "predicted, not measured" in planned(2)
    run(model)
    text = planned(2)
    # 64 / 32: the fastest of all trials.
    assert re.search(
        r"one call: 2 ms \(measured here: triune tune, \d{4}-\d\d-\d\d, 100 calls; the cost model alone predicts", text
    )
    assert "not measured" not in text
    text = planned(8)
    assert "predicted, not measured" in text
    assert "what was measured here is for other shapes, and corrects nothing; such as --shape x=2,4" in text
    (kept,) = (tmp_path / "cache" / "times").iterdir()
    kept.write_text("[")
    assert "is broken" in planned(2)


@pytest.mark.usefixtures("made_up")
def test_json_has_every_trial(model: Path) -> None:
    found = json.loads(run(model, "--json", "--callers=2"))
    assert found["is_gain"]
    assert found["best"] == "max_batch_size=32"
    assert found["tried"][0]["is_given"]
    assert [each["config"] for each in found["tried"] if each["is_best"]] == ["max_batch_size=32"]
    assert parse_text(found["config"].encode(), "config").max_batch_size == 32
    assert found["tried"][0]["levels"] == [
        {"callers": 2, "num_requests": 3000, "requests_per_second": 160, "p50_ms": 1, "p99_ms": 2, "joules": None}
    ]


@pytest.mark.usefixtures("made_up")
def test_a_limit_that_nothing_meets_says_the_best_that_can_be_had(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"within 0\.5 ms; the best that can be had is 1 ms with 1 caller"):
        run(model, "--p99-ms=0.5", "-o", tmp_path / "out", "--html", tmp_path / "page.html")
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("arguments", "kind", "reason"),
    [
        (["--budget=0s"], InvalidArgumentError, "a budget of 0 s"),
        (["--budget=soon"], InvalidArgumentError, "such as 60s or 10m"),
        (["--budget=0.1s"], InvalidArgumentError, r"the least that is needed is \d+ s"),
        (["--p99-ms=0"], InvalidArgumentError, "give one above 0"),
        (["--callers=4,1"], InvalidArgumentError, "in ascending order"),
        (["--callers=4,x"], InvalidArgumentError, "whole numbers such as 1,4,16"),
        (["--input=none.npz"], NotFoundError, "no file of inputs 'none.npz'"),
    ],
)
def test_bad_arguments(model: Path, arguments: list[str], kind: type[TriuneError], reason: str) -> None:
    with pytest.raises(kind, match=reason):
        run(model, *arguments)


def test_models_that_are_none(model: Path) -> None:
    with pytest.raises(NotFoundError, match=r"does not exist; give a model's folder in a repository; '.*' has double"):
        run(model.parent / "triple")
    with pytest.raises(NotFoundError, match=r"no model's folder: .* has double"):
        run(model.parent)
    with pytest.raises(NotFoundError, match="is a file"):
        run(model / "config.pbtxt")
    write_model(model.parent, "steps", 'platform: "ensemble"', v1=b"")
    with pytest.raises(UnsupportedError, match="its backend is ensemble"):
        run(model.parent / "steps")


@pytest.mark.usefixtures("made_up")
def test_the_page_of_the_documentation_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(tmp_path / "models", "minilm", CONFIG, v1=affine())
    np.savez(tmp_path / "sentences.npz", x=np.zeros((3, 4), np.float32))
    monkeypatch.chdir(tmp_path)
    commands, program = re.findall(r"^```(?:python)?\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    for line in commands.splitlines():
        words = shlex.split(line)
        assert words[:2] == ["triune", "tune"]
        if "joules" in line:
            # Whether there is a meter depends on the machine, and made-up trials have no joules.
            continue
        run(*words[2:])
    assert "max_batch_size: 32" in (tmp_path / "tuned" / "config.pbtxt").read_text()
    assert (tmp_path / "tuned.html").exists()
    exec(program, {})
    assert "better than the given config" in capsys.readouterr().out


def test_no_meter_for_joules(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Metered:
        def __enter__(self) -> object:
            return SimpleNamespace(why_unavailable=lambda unit: f"no counter of {unit.value}")

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(tuning, "metered", lambda _: Metered())
    with pytest.raises(UnsupportedError, match=r"joules cannot be the objective: .*'cpu'.* no counter of cpu"):
        run(model, "--objective=joules")
