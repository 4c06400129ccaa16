"""The files of a load request, in a temporary folder, where the runtime can read them."""

from collections.abc import Mapping
from pathlib import Path

from triune.config.layout import inside
from triune.core.errors import InternalError, InvalidArgumentError
from triune.core.scratch import HeldFolder

_FAILED = "failed to load '{}', failed to poll from model repository"


class Override:
    """A temporary folder in place of a model's folder. Only the server's user can read it.

    Attributes:
        folder: the folder, in the layout of a model's folder.
    """

    def __init__(self, name: str, files: Mapping[str, bytes]) -> None:
        """Write `files`: the content by path below the model's folder.

        Raises:
            InvalidArgumentError: a path leads outside the folder or is too long, or a file is also the folder of
                another.
            InternalError: a file cannot be written, because no space is left for example.
        """
        try:
            self._held = HeldFolder()
        except OSError as error:
            raise InternalError(f"the files of '{name}' cannot be written: {error.strerror or error}") from error
        self.folder = self._held.path / name
        try:
            for relative, content in files.items():
                path = inside(self.folder, relative, f"{_FAILED.format(name)}: file parameter")
                _write(path, relative, content, name)
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Delete the folder."""
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
        # Clients of Triton expect this message and status.
        raise InternalError(
            f"{_FAILED.format(model)}: file parameter '{relative}' cannot be written: {error.strerror or error}"
        ) from error
