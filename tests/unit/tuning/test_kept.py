"""Executables are compiled once for all trials of a model, and freed when there are too many."""

from pathlib import Path

import pytest

from support.repositories import Bench, affine, write_model
from triune.backends.tensor import compile as compiling
from triune.backends.tensor.executable import SharedExecutable
from triune.config.parse import parse_text
from triune.core.units import Unit
from triune.hardware.memory import Memory
from triune.tuning import kept as keeping
from triune.tuning.kept import KeptExecutables
from triune.tuning.trial import Subject, measure

SECONDS = 0.02


class Tuned:
    """A model whose compilations are listed."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        made = write_model(folder, "m", v1=affine())
        self.subject = Subject("m", made, 1, Bench().machine, (1,))
        self.kept = KeptExecutables()
        self.compiled: list[SharedExecutable] = []
        before = compiling.compile_one

        def compile_one(*arguments: object, **options: object) -> SharedExecutable:
            self.compiled.append(before(*arguments, **options))  # type: ignore[arg-type]
            return self.compiled[-1]

        monkeypatch.setattr(compiling, "compile_one", compile_one)

    def measure(self, units: str, batch: int = 4, count: int = 1) -> None:
        text = (
            f"max_batch_size: {batch} instance_group [ {{ kind: KIND_CPU, count: {count} }} ] "
            f'parameters {{ key: "units" value {{ string_value: "{units}" }} }}'
        )
        found = measure(self.subject, parse_text(text.encode(), "config"), SECONDS, self.kept)
        assert found.levels, found.failure

    @property
    def units(self) -> list[Unit]:
        return [each.unit for each in self.compiled]


@pytest.fixture
def tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tuned:
    return Tuned(tmp_path, monkeypatch)


def test_only_what_is_new_is_compiled(tuned: Tuned) -> None:
    tuned.measure("cpu,amx")
    assert sorted(each.value for each in tuned.units) == ["amx", "cpu"]
    for units in ("cpu", "amx", "amx,cpu"):
        tuned.measure(units, batch=8)
    assert len(tuned.compiled) == 2
    # Two instances have fewer threads each, if the machine has several cores.
    tuned.measure("cpu", count=2)
    assert tuned.units[2:] in ([Unit.CPU], [Unit.CPU, Unit.CPU])
    num_compiled = len(tuned.compiled)
    tuned.measure("cpu,amx")
    tuned.measure("cpu", count=2)
    assert len(tuned.compiled) == num_compiled
    tuned.kept.close()
    assert tuned.kept.previous() is None


def test_those_that_were_not_used_for_longest_are_freed(tuned: Tuned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "_MOST", 1)
    tuned.measure("cpu")
    tuned.measure("amx")
    tuned.measure("amx")
    assert tuned.units == [Unit.CPU, Unit.AMX]
    tuned.measure("cpu")
    assert tuned.units == [Unit.CPU, Unit.AMX, Unit.CPU]


def test_nothing_is_kept_where_memory_is_short(tuned: Tuned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "usable_memory", lambda: Memory(100, 24))
    tuned.measure("cpu")
    tuned.measure("cpu")
    assert tuned.units == [Unit.CPU, Unit.CPU]
    assert tuned.kept.previous() is None


def test_the_verdict_of_a_unit_holds_for_its_recipe_alone(tuned: Tuned) -> None:
    tuned.measure("cpu,amx")
    previous = tuned.kept.previous()
    assert previous is not None
    assert set(previous.verdicts) == {Unit.AMX}
    tuned.measure("amx", count=2)
    previous = tuned.kept.previous()
    assert previous is not None
    recipes = {each.recipe for each in previous.executables if each.unit is Unit.AMX}
    assert (Unit.AMX in previous.verdicts) == (len(recipes) == 1)
