"""Links in a model's folder. What they lead to is read as its owner laid them, but not all of it is handed out.

Clients are given labels, and weights, which any model can return. So these lie where the model lies.
"""

import os
from pathlib import Path

from triune.core.errors import InvalidArgumentError
from triune.graph.load import external_data, read_model


def require_near(path: Path, folder: Path, what: str) -> Path:
    """A file that a config names, if it really lies in the model's folder, wherever that really is, or its repository.

    Args:
        path: the file.
        folder: the model's.
        what: what names the file, for the message.

    Raises:
        InvalidArgumentError: links lead elsewhere.
    """
    real = _real(path)
    if not (real.is_relative_to(_real(folder)) or real.is_relative_to(_real(folder.parent))):
        raise _leads_out(f"{what} '{path.name}'", real)
    return path


def require_data_near(file: Path, version_folder: Path) -> None:
    """See that the weights beside a model's file are the model's.

    Links to them may lead within the repository, into the model's and the version's folder wherever these really are,
    and into the very folder in which the model's file really is, as those of Hugging Face's cache do.

    Args:
        file: the model's file, which has been inspected; packages, and what is no ONNX, have no weights beside them.
        version_folder: where it lies; the repository is two folders above.

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


def _has_other_links(folder: Path, file: Path) -> bool:
    return any(
        Path(place, name).is_symlink() and Path(place, name) != file
        for place, folders, files in os.walk(folder)
        for name in (*folders, *files)
    )


def _real(path: Path) -> Path:
    # Path.resolve raises where links lead in circles.
    return Path(os.path.realpath(path))


def _leads_out(what: str, real: Path) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"{what} leads by a link to {real}, outside the model's folder and its repository, and clients could ask for "
        "what is in it; put the file itself there, or link the model's whole folder"
    )
