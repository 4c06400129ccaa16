"""Accept a model's folder in a repository wherever a model file is expected."""

from pathlib import Path
from typing import Final

from triune.config.layout import CONFIG_FILENAME, is_version
from triune.config.parse import LARGEST_CONFIG_BYTES, parse_text
from triune.config.transformer import GGUF_FILENAME
from triune.core.errors import NotFoundError
from triune.core.files import read_file
from triune.runtimes.registry import ROWS

_FILENAMES: Final = (*(f"model{suffix}" for row in ROWS for suffix in row.suffixes), GGUF_FILENAME)


def newest_version(folder: Path) -> Path | None:
    """The folder of a model's newest version; None if it is not a model's folder in a repository."""
    versions = [each for each in folder.glob("*") if is_version(each.name) and each.is_dir()]
    return max(versions, key=lambda each: int(each.name), default=None)


def model_in(path: Path) -> Path:
    """The model file at a path: the newest version's file if the path is a model's folder in a repository, else the
    path itself.

    Raises:
        NotFoundError: the newest version has no model.
    """
    version = newest_version(path)
    if version is None:
        return path
    named = _named_file(path)
    names = (named,) if named else _FILENAMES
    found = next((version / name for name in names if (version / name).exists()), None)
    if found is None and (version / "config.json").exists():
        return version
    if found is None:
        raise NotFoundError(f"'{version}' has no {' or '.join(names)}: name the model's file")
    return found


def _named_file(folder: Path) -> str:
    """The file that the model's config names; empty if it names none."""
    path = folder / CONFIG_FILENAME
    if not path.exists():
        return ""
    return parse_text(read_file(path, LARGEST_CONFIG_BYTES), f"{folder.name}/{path.name}").default_model_filename
