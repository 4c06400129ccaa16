"""Finds model files with a wrong name or in a wrong folder, for error messages."""

from pathlib import Path
from typing import Final

from triune.runtimes.registry import ROWS

_SUFFIXES: Final = (*(suffix for row in ROWS for suffix in row.suffixes), ".gguf")
_WEIGHTS: Final = ".safetensors"


def misnamed(version_folder: Path) -> str:
    """The end of an error message if a version's folder has a model file with another name; empty if there is none."""
    found = _model_file(version_folder)
    if not found:
        return ""
    return f"; it has '{found}': rename it to '{_usual(found)}', or name it in 'default_model_filename'"


def misplaced(folder: Path) -> str:
    """The end of an error message if a model file lies beside the version folders; "" if there is none."""
    found = _model_file(folder)
    if found:
        return f"; '{found}' belongs in a version folder: move it to '{folder.name}/1/{_usual(found)}'"
    if any(name.endswith(_WEIGHTS) for name in _names(folder)):
        return f"; the files of a checkpoint belong in a version folder: move them to '{folder.name}/1'"
    return ""


def _model_file(folder: Path) -> str:
    return next((name for name in _names(folder) if name.endswith(_SUFFIXES)), "")


def _usual(name: str) -> str:
    return f"model{Path(name).suffix}"


def _names(folder: Path) -> list[str]:
    try:
        return sorted(each.name for each in folder.iterdir() if not each.name.startswith("."))
    except OSError:
        return []
