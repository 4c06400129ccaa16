"""The cache on disk for converted and compiled models.

The key of an entry is a hash of everything that its content depends on, so that no entry is ever out of date.
"""

import contextlib
import hashlib
import importlib.metadata
import logging
import os
import platform
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path

from triune.core.byte_settings import cache_bytes
from triune.core.cache import cache_folder
from triune.core.errors import InvalidArgumentError, UnavailableError
from triune.core.files import open_file
from triune.core.patient_lock import patient_lock
from triune.core.scratch import HeldFolder, sweep
from triune.core.version import VERSION
from triune.coreml.lowering import LowerOptions as CoreMlOptions
from triune.graph.conversion.options import ConversionOptions
from triune.graph.load import external_data, read_model
from triune.runtimes.cache_holds import NOTES, hold
from triune.runtimes.cache_trim import MAKING, sums_of, trim
from triune.runtimes.checksums import checksums_of, what_is_wrong, write_checksums

_log = logging.getLogger(__name__)

_NAMES = ("coreml", "coreai", "custom", "optimized")
"""The folders in Triune's cache folder that share one size limit ($TRIUNE_CACHE_BYTES)."""

_BLOCK_BYTES = 1 << 20
_CORE_ML = (("graph", "coreml/lowering"), ("coremltools", "onnx"))
_CORE_AI = (("graph", "coreai"), ("coreai-core", "onnx"))


class CompiledCache:
    """A folder with an entry, a file or a folder, for each converted or compiled model."""

    def __init__(self, folder: Path | None = None, *, name: str = "coreml") -> None:
        """Args:
        folder: the folder, created when needed. None takes the folder `name` in Triune's cache folder.
        name: the default folder's name.
        """
        self.folder = folder or cache_folder() / name
        self._limited = [folder] if folder else [cache_folder() / each for each in _NAMES]

    def get(self, name: str, make: Callable[[Path], object]) -> Path:
        """Return the path of an entry. It is made if it does not exist, or if its checksums do not match.

        Writes are atomic. Processes that share the folder make an entry only once; but if the process that makes it
        shows no sign of life, a waiting process makes it, too, and the first one to finish stores its entry.

        No process removes the entry until this process ends. In the context `cache_holds.collecting`, the entry is kept
        only until the owner that is given to `cache_holds.keep_for` is freed.

        Args:
            name: the key: a hash and a suffix.
            make: writes the entry to the given path. If it raises an error, nothing is stored.

        Raises:
            UnavailableError: the folder cannot be written to.
            InvalidArgumentError: $TRIUNE_CACHE_BYTES is not a number of bytes.
        """
        path = self.folder / name
        sums = sums_of(path)
        is_held = hold(self.folder / NOTES, name)
        if what_is_wrong(path, sums) is None:
            # Set the time of the checksums' file, by which `trim` knows when the entry was last used.
            with contextlib.suppress(OSError):
                os.utime(sums)
            return path
        with self._locked(name), self._making_folder() as temporary:
            problem = what_is_wrong(path, sums)
            if problem is None:
                return path
            made = temporary / name
            make(made)
            noted = checksums_of(made)
            try:
                if os.path.lexists(path):
                    _log.warning("'%s' in the cache is thrown away, and made again: %s", path, problem)
                    # Rename the old entry, so that a process that is reading it can continue.
                    path.rename(temporary / "thrown-away")
                made.rename(path)
                write_checksums(noted, sums)
            except OSError as error:
                # Ignore the error if another process has stored the same entry meanwhile.
                if what_is_wrong(path, sums) is not None:
                    raise self._unwritable(error) from error
        if is_held or hold(self.folder / NOTES, name):
            trim(self._limited, cache_bytes())
        return path

    @contextlib.contextmanager
    def _locked(self, name: str) -> Generator[None]:
        notes = self.folder / NOTES
        with contextlib.ExitStack() as stack:
            try:
                if notes.is_file():
                    # Remove the lock file that earlier versions of Triune kept for the entry.
                    notes.unlink(missing_ok=True)
                notes.mkdir(parents=True, exist_ok=True)
                is_held = stack.enter_context(patient_lock(notes / f"{name}.lock"))
            except OSError as error:
                raise self._unwritable(error) from error
            if not is_held:
                _log.warning("'%s' is made without waiting for another, who shows no sign of life", self.folder / name)
            yield

    @contextlib.contextmanager
    def _making_folder(self) -> Generator[Path]:
        # Remove the temporary folders of processes that were killed while they made an entry.
        sweep(self.folder, MAKING)
        try:
            folder = HeldFolder(self.folder, MAKING)
        except OSError as error:
            raise self._unwritable(error) from error
        with folder as path:
            yield path

    def _unwritable(self, error: OSError) -> UnavailableError:
        return UnavailableError(
            f"cannot write to {self.folder}: {error.strerror or error}; set TRIUNE_CACHE to a folder that can be "
            "written"
        )


def conversion_digest(path: Path, options: ConversionOptions) -> str:
    """The key of a conversion: a hash of the ONNX file, its weights, the options, the converter and its libraries.

    Raises:
        InvalidArgumentError: the file is not an ONNX model, or its weights are missing.
    """
    return _onnx_digest(path, repr(options), *(_CORE_ML if isinstance(options, CoreMlOptions) else _CORE_AI))


def functions_digest(paths: Mapping[str, Path], options: str) -> str:
    """The key of a Core ML package of several functions: a hash of their ONNX files and weights, the options, the
    converter and its libraries. Raises the errors of `conversion_digest`.
    """
    return _digest([], [f"{name} {_onnx_digest(path, options, *_CORE_ML)}" for name, path in paths.items()])


def optimization_digest(path: Path, options: str) -> str:
    """The key of an optimized graph: a hash of the ONNX file, its weights, the options, Triune's passes, and the
    versions of the libraries. Raises the errors of `conversion_digest`.
    """
    return _onnx_digest(path, options, ("graph",), ("onnx", "onnxruntime"))


def custom_ops_digest(path: Path, ops: str) -> str:
    """The key of a model with the bodies of its custom operators: a hash of the ONNX file, its weights, and the digest
    of the operators. Raises the errors of `conversion_digest`.
    """
    return _onnx_digest(path, ops, ("graph/custom",), ("onnx",))


def _onnx_digest(path: Path, options: str, rooms: Sequence[str], libraries: Sequence[str]) -> str:
    texts = [options, *_versions(libraries)]
    weights = external_data(read_model(path), path)
    try:
        for file, pieces in sorted(weights.items()):
            texts += [file.name, *(_digest_piece(file, *piece) for piece in pieces)]
        return _digest([path, *_code(rooms)], texts)
    except OSError as error:
        raise InvalidArgumentError(f"'{path}' or its weights cannot be read: {error.strerror or error}") from error


def raising_digest(asset_digest: bytes, function: str) -> str:
    """The key of a conversion to ONNX: a hash of the Core AI asset, the function, the converter and its libraries."""
    rooms, libraries = _CORE_AI
    return _digest(_code(rooms), [asset_digest.hex(), function, *_versions(libraries)])


def _versions(libraries: Sequence[str]) -> list[str]:
    return [VERSION, *(f"{name} {importlib.metadata.version(name)}" for name in libraries)]


def package_digest(path: Path) -> str:
    """The key of a compiled package: a hash of its files and of the system's version."""
    files = sorted(each for each in path.rglob("*") if each.is_file())
    names = [each.relative_to(path).as_posix() for each in files]
    version = importlib.metadata.version("coremltools")
    return _digest(files, [*names, f"coremltools {version}", platform.platform(), platform.machine()])


def _code(rooms: Sequence[str]) -> list[Path]:
    root = Path(__file__).parents[1]
    return sorted(path for room in rooms for path in (root / room).rglob("*.py"))


def _digest_piece(path: Path, begin: int, end: int) -> str:
    """The SHA-256 of the bytes of a file from `begin` to `end`."""
    total = hashlib.sha256(f"{begin} {end}".encode())
    with open_file(path) as file:
        file.seek(begin)
        while begin < end and (block := file.read(min(_BLOCK_BYTES, end - begin))):
            total.update(block)
            begin += len(block)
    return total.hexdigest()


def _digest(files: Iterable[Path], texts: Iterable[str]) -> str:
    total = hashlib.sha256()
    for text in texts:
        total.update(f"{len(text)} {text}".encode())
    for path in files:
        with open_file(path) as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
