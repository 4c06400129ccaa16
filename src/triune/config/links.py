"""Symbolic links in a model's folder, and which files they may lead to.

Links are followed. But clients can receive the contents of label files, of chat templates, and of weights, since a
model may return them. So links to these files must lead to folders near the model, and cannot expose other files of the
machine.
"""

import os
from pathlib import Path
from typing import Final

from triune.core.errors import InvalidArgumentError
from triune.graph.load import external_data, read_model

_WEIGHTS: Final = frozenset({".safetensors", ".gguf", ".bin", ".onnx"})
"""The suffixes of model files. Links to these may lead anywhere: a model file is parsed as a model, so a link to
another kind of file exposes nothing.
"""

_NEVER_READ: Final = ("readme", "license", "notice", "copying", "changelog", ".git")
"""The beginnings of the names, in lower case, of files that are for people or for git, and that no code here reads."""


def require_near(path: Path, folder: Path, what: str) -> Path:
    """Check that a file, after its symbolic links, lies in the model's folder or in the repository around it.

    Args:
        path: the file.
        folder: the model's folder.
        what: what the error message calls the file.

    Returns:
        `path` as it is.

    Raises:
        InvalidArgumentError: a symbolic link leads out of both folders.
    """
    real = _real(path)
    if not (real.is_relative_to(_real(folder)) or real.is_relative_to(_real(folder.parent))):
        raise _leads_out(f"{what} '{path.name}'", real)
    return path


def require_data_near(file: Path, version_folder: Path) -> None:
    """Check that the files with a model's external weights are near the model.

    Their links may lead into the repository, into the model's and the version's folder after resolving links, and into
    the folder that contains the model file after resolving links, as in Hugging Face's cache.

    Args:
        file: the model file, which was inspected already. Only ONNX files have external weights.
        version_folder: the version's folder; the repository is two folders above it.

    Raises:
        InvalidArgumentError: links lead elsewhere.
    """
    if file.is_dir() or not _has_other_links(version_folder, file):
        return
    try:
        model = read_model(file)
    except InvalidArgumentError:
        return
    roots = [_real(each) for each in (version_folder, *version_folder.parents[:2])]
    for data in external_data(model, file):
        real = _real(data)
        if real.parent != _real(file).parent and not any(real.is_relative_to(root) for root in roots):
            raise _leads_out(f"'{data.relative_to(file.parent)}', where the model's weights are,", real)


def require_checkpoint_near(path: Path, model_folder: Path) -> None:
    """Check that the files of a checkpoint or an adapter, such as its config, tokenizer and chat template, are near it.

    Their links may lead into the repository, into the model's and the checkpoint's folder after resolving links, and
    into the folder `blobs` of a model in Hugging Face's cache. Weights may be anywhere, like model files, and so may
    files that are never read, such as a README.

    Args:
        path: the checkpoint's folder, or the file in it that is the model.
        model_folder: the model's folder; the repository is the folder above it.

    Raises:
        InvalidArgumentError: links lead elsewhere.
    """
    folder = path if path.is_dir() else path.parent
    roots = [_real(each) for each in (folder, model_folder, model_folder.parent)]
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            each = Path(place, name)
            is_never_read = name.lower().startswith(_NEVER_READ) and not each.is_dir()
            if not each.is_symlink() or each.suffix in _WEIGHTS or is_never_read:
                continue
            real = _real(each)
            is_near = any(real.is_relative_to(root) for root in roots) or _is_in_cache(real)
            if not is_near and not (_is_beside_onnx(each) and real.parent == _real(path).parent):
                raise _leads_out(f"'{each.relative_to(folder)}', a part of the checkpoint,", real)


def require_adapter_near(folder: Path, model_folder: Path) -> None:
    """Check that the folder of an adapter, after its links, and the files in it are near the model.

    Raises:
        InvalidArgumentError: links lead elsewhere.
    """
    require_near(folder, model_folder, "the folder of the adapter")
    require_checkpoint_near(folder, model_folder)


def _is_in_cache(real: Path) -> bool:
    """Whether a file is in Hugging Face's cache, `models--OWNER--NAME/blobs/HASH`, which has only files of models."""
    return real.parent.name == "blobs" and real.parents[1].name.startswith("models--")


def _is_beside_onnx(path: Path) -> bool:
    """Whether a file holds external weights of an ONNX model, judged by its name, such as `model.onnx.data`."""
    return ".onnx" in path.name


def _has_other_links(folder: Path, file: Path) -> bool:
    return any(
        Path(place, name).is_symlink() and Path(place, name) != file
        for place, folders, files in os.walk(folder)
        for name in (*folders, *files)
    )


def _real(path: Path) -> Path:
    # Use realpath: unlike Path.resolve, it raises no error for a cycle of links.
    return Path(os.path.realpath(path))


def _leads_out(what: str, real: Path) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"{what} leads by a link to {real}, outside the model's folder and its repository, and clients could ask for "
        "what is in it; put the file itself there, or link the model's whole folder"
    )
