"""Verdicts on disk."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from triune.backends.gate import kept as room
from triune.backends.gate.kept import KeptVerdicts
from triune.config.placement import Recipe
from triune.core.units import Unit
from triune.core.verdict import Verdict

RECIPE = Recipe("openvino", Unit.AMX, 2, ())
WRONG = Verdict(precision="bf16", tolerance=0.25, largest=float("inf"), relative=0.5, excess="off", cause="Sub 'd'")


def test_what_is_kept_is_found_again_for_the_same_load_and_recipe(tmp_path: Path) -> None:
    kept = KeptVerdicts(tmp_path / "gates")
    assert kept.find("key", RECIPE) is None
    kept.keep("key", RECIPE, WRONG)
    found = KeptVerdicts(tmp_path / "gates").find("key", RECIPE)
    assert found == WRONG
    assert found.is_kept
    assert found.reason == "off; the likely reason is Sub 'd'"
    assert kept.find("other", RECIPE) is None
    assert kept.find("key", Recipe("openvino", Unit.AMX, 2, (("level", "3"),))) is None
    assert [path.suffix for path in (tmp_path / "gates").iterdir()] == [".json"]


@pytest.mark.parametrize("cosine", [None, 1, -0.25])
def test_the_cosine_of_logits_is_kept(cosine: float | None, tmp_path: Path) -> None:
    kept = KeptVerdicts(tmp_path)
    kept.keep("key", RECIPE, replace(WRONG, cosine=cosine))
    found = kept.find("key", RECIPE)
    assert found is not None
    assert found.cosine == cosine


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"precision": 3}', "[" * 100_000])
def test_a_broken_file_is_told_of_and_replaced(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = KeptVerdicts(tmp_path)
    kept.keep("key", RECIPE, WRONG)
    (path,) = tmp_path.iterdir()
    path.write_text(text)
    assert kept.find("key", RECIPE) is None
    assert f"{path}" in caplog.text
    kept.keep("key", RECIPE, WRONG)
    assert kept.find("key", RECIPE) == WRONG


@pytest.mark.parametrize(
    ("name", "value"),
    [("excess", "\ud800"), ("cause", "\ud800"), ("relative", float("nan")), ("tolerance", -1), ("largest", "1")],
)
def test_a_verdict_that_no_comparison_gives_is_none(name: str, value: object, tmp_path: Path) -> None:
    kept = KeptVerdicts(tmp_path)
    kept.keep("key", RECIPE, WRONG)
    (path,) = tmp_path.iterdir()
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    assert kept.find("key", RECIPE) is None


def test_the_oldest_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_MOST", 2)
    kept = KeptVerdicts(tmp_path)
    for age, key in enumerate(("first", "second", "third")):
        kept.keep(key, RECIPE, WRONG)
        for path in tmp_path.iterdir():
            if path.stat().st_mtime_ns > 10**12:
                os.utime(path, ns=(age * 10**9, age * 10**9))
    assert [kept.find(key, RECIPE) is not None for key in ("first", "second", "third")] == [False, True, True]


def test_a_folder_that_cannot_be_written_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "gates").write_text("a file")
    KeptVerdicts(tmp_path / "gates").keep("key", RECIPE, WRONG)
    assert "TRIUNE_CACHE" in caplog.text
