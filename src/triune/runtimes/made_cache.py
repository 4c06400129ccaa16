"""What is made of a model once and kept: programs of ONNX models, ONNX models of programs, what Core ML compiled.

An entry's name is a digest of all that decides its content, so nothing is ever out of date.
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import platform
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path

from triune.core.cache import cache_folder
from triune.core.errors import InvalidArgumentError, UnavailableError
from triune.core.files import open_file
from triune.core.version import VERSION
from triune.coreml.lowering import LowerOptions as CoreMlOptions
from triune.graph.conversion.options import ConversionOptions
from triune.graph.load import external_data, read_model

_MAKING = ".making-"
_BLOCK_BYTES = 1 << 20
_CORE_ML = (("graph", "coreml/lowering"), ("coremltools", "onnx"))
_CORE_AI = (("graph", "coreai"), ("coreai-core", "onnx"))


class CompiledCache:
    """A folder of what was made."""

    def __init__(self, folder: Path | None = None, *, name: str = "coreml") -> None:
        """Args:
        folder: made when there is something to keep. None takes `name` in Triune's cache.
        name: see there.
        """
        self.folder = folder or cache_folder() / name

    def get(self, name: str, make: Callable[[Path], object]) -> Path:
        """The entry of that name, made if it is not there: whole, or not at all.

        One is made at a time, over all processes that share the folder: Apple's libraries are not for several threads.

        Args:
            name: digest and suffix.
            make: writes the entry at the path that it is given. What it raises is raised, and nothing is kept.

        Raises:
            UnavailableError: the folder cannot be written to.
        """
        path = self.folder / name
        if path.exists():
            return path
        with self._locked():
            if path.exists():
                return path
            with tempfile.TemporaryDirectory(prefix=_MAKING, dir=self.folder) as temporary:
                made = Path(temporary) / name
                make(made)
                made.rename(path)
        return path

    @contextlib.contextmanager
    def _locked(self) -> Generator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / ".lock").open("a")
        except OSError as error:
            raise UnavailableError(
                f"cannot write to {self.folder}: {error.strerror or error}; set TRIUNE_CACHE to a folder that can be "
                "written"
            ) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Whoever was killed while he had the lock left it.
            for left in self.folder.glob(f"{_MAKING}*"):
                shutil.rmtree(left, ignore_errors=True)
            yield


def conversion_digest(path: Path, options: ConversionOptions) -> str:
    """Of an ONNX file, its weights, how it is to be converted, and all that converts it.

    Raises:
        InvalidArgumentError: the file is no ONNX model, or its weights are not there.
    """
    rooms, libraries = _CORE_ML if isinstance(options, CoreMlOptions) else _CORE_AI
    words = [repr(options), *_versions(libraries)]
    weights = external_data(read_model(path), path)
    try:
        for file, pieces in sorted(weights.items()):
            words += [file.name, *(_digest_piece(file, *piece) for piece in pieces)]
        return _digest([path, *_code(rooms)], words)
    except OSError as error:
        raise InvalidArgumentError(f"'{path}' or its weights cannot be read: {error.strerror or error}") from error


def raising_digest(asset_digest: bytes, function: str) -> str:
    """Of a Core AI program, its function that is to be raised, and all that raises it."""
    rooms, libraries = _CORE_AI
    return _digest(_code(rooms), [asset_digest.hex(), function, *_versions(libraries)])


def _versions(libraries: Sequence[str]) -> list[str]:
    return [VERSION, *(f"{name} {importlib.metadata.version(name)}" for name in libraries)]


def package_digest(path: Path) -> str:
    """Of a package's files, and the system that compiles it."""
    files = sorted(each for each in path.rglob("*") if each.is_file())
    names = [each.relative_to(path).as_posix() for each in files]
    version = importlib.metadata.version("coremltools")
    return _digest(files, [*names, f"coremltools {version}", platform.platform(), platform.machine()])


def _code(rooms: Sequence[str]) -> list[Path]:
    root = Path(__file__).parents[1]
    return sorted(path for room in rooms for path in (root / room).rglob("*.py"))


def _digest_piece(path: Path, begin: int, end: int) -> str:
    """Of a part of a file, which may have much else in it."""
    total = hashlib.sha256(f"{begin} {end}".encode())
    with open_file(path) as file:
        file.seek(begin)
        while begin < end and (block := file.read(min(_BLOCK_BYTES, end - begin))):
            total.update(block)
            begin += len(block)
    return total.hexdigest()


def _digest(files: Iterable[Path], words: Iterable[str]) -> str:
    total = hashlib.sha256()
    for word in words:
        total.update(f"{len(word)} {word}".encode())
    for path in files:
        with open_file(path) as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
