"""The files of a load request, in a temporary folder, where the runtime can read them."""

import errno
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from triune.config.layout import inside
from triune.core.errors import InternalError, InvalidArgumentError, TriuneError, UnavailableError
from triune.core.scratch import HeldFolder

MAX_DEPTH: Final = 16
"""The largest number of folders in the path of a file of a load request."""

MAX_FOLDERS: Final = 1024
"""The largest number of folders that the files of a load request may be in."""

MAX_FILES: Final = 4096
"""The largest number of files of a load request."""

_FULL = (errno.ENOSPC, errno.EDQUOT)

_FAILED = "failed to load '{}', failed to poll from model repository"


class Override:
    """A temporary folder in place of a model's folder. Only the server's user can read it.

    Attributes:
        folder: the folder, in the layout of a model's folder.
    """

    def __init__(self, name: str, files: Mapping[str, bytes]) -> None:
        """Write `files`: the content by path below the model's folder.

        Raises:
            InvalidArgumentError: a path leads outside the folder, is too long or too deep, a file is also the folder of
                another, or there are too many files or folders.
            UnavailableError: no space is left for the files.
            InternalError: a file cannot be written for another reason.
        """
        for relative in files:
            inside(Path(name), relative, f"{_FAILED.format(name)}: file parameter")
        _check_number(files, name)
        try:
            self._held = HeldFolder()
        except OSError as error:
            raise _not_written(f"the files of '{name}'", error) from error
        self.folder = self._held.path / name
        try:
            for relative, content in files.items():
                _write(self.folder / PurePosixPath(relative), relative, content, name)
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Delete the temporary folder."""
        self._held.remove()


def _write(path: Path, relative: str, content: bytes, model: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise InvalidArgumentError(
            f"Invalid file parameter '{relative}', directory has been created as a file: give each path once, "
            "as a file or as a folder"
        ) from error
    except OSError as error:
        raise _not_written(f"{_FAILED.format(model)}: file parameter '{relative}'", error) from error


def _not_written(what: str, error: OSError) -> TriuneError:
    reason = f"{what} cannot be written: {error.strerror or error}"
    if error.errno in _FULL:
        return UnavailableError(
            f"{reason} in '{tempfile.gettempdir()}', the server's folder for temporary files; make room there, or "
            "start the server with TMPDIR set to a folder that has more"
        )
    # Answer with the status and message that Triton has for this error, since its clients expect them.
    return InternalError(reason)


def _check_number(paths: Iterable[str], model: str) -> None:
    """Raise InvalidArgumentError if there are too many files, or if one path or all paths together have too many
    folders.

    A million folders would take the system minutes to make, and again to remove.
    """
    folders: set[PurePosixPath] = set()
    for num_files, path in enumerate(map(PurePosixPath, paths), 1):
        depth = len(path.parts) - 1
        if depth > MAX_DEPTH:
            raise InvalidArgumentError(
                f"{_FAILED.format(model)}: file parameter '{str(path)[:64]}' is {depth} folders deep; {MAX_DEPTH} are "
                "the limit: put the file higher"
            )
        folders.update(path.parents)
        if num_files > MAX_FILES or len(folders) > MAX_FOLDERS:
            raise InvalidArgumentError(
                f"{_FAILED.format(model)}: the file parameters have more than {MAX_FILES} files or {MAX_FOLDERS} "
                "folders, the limits of a load; put files together, or load the model from a repository's folder"
            )
