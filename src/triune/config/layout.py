"""Triton's layout on disk: `<repository>/<model>/config.pbtxt` and `<repository>/<model>/<version>/<model file>`."""

import logging
import re
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from triune.core.errors import InvalidArgumentError
from triune.core.printable import encodable
from triune.protos.model_config_pb2 import ModelVersionPolicy

_log = logging.getLogger(__name__)

CONFIG_FILENAME = "config.pbtxt"
WARMUP_FOLDER = "warmup"
CONFIGS_FOLDER = "configs"
_FOLDERS_THAT_ARE_NO_VERSIONS = frozenset({WARMUP_FOLDER, "initial_state", CONFIGS_FOLDER})
_LONGEST_NAME_BYTES = 255
"""The limit of Linux and macOS for a file or folder name."""

_LONGEST_PATH_BYTES = 512
"""The limit for a path within a model's folder. macOS allows 1024 bytes for the whole path."""

_NUM_SHOWN = 64

_MAX_NAMED = 16
"""The most folders without a version number that the log names: a linked folder may have thousands."""

_VERSION = re.compile(r"0|[1-9][0-9]{0,18}")


def check_name(name: str) -> None:
    """Raise InvalidArgumentError if `name` cannot be a model's folder."""
    _check_length(name, "model name", _LONGEST_NAME_BYTES)
    if not name.strip():
        raise InvalidArgumentError("Model name cannot be empty. Please enter a valid name to deploy.")
    if name.strip() in (".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise InvalidArgumentError(
            f"invalid model name '{name}', model name must not contain path traversal characters"
        )


def _check_length(text: str, what: str, longest: int) -> None:
    """Raise InvalidArgumentError if a name or path has more bytes than systems allow, or cannot be encoded."""
    # Shorten a long name in the error: its beginning is enough to recognize it.
    shown = text if len(text) <= _NUM_SHOWN else f"{text[:_NUM_SHOWN]}..."
    try:
        num_bytes = len(text) if len(text) > longest else len(text.encode())
    except UnicodeEncodeError:
        raise InvalidArgumentError(f"{what} {shown!r} is not UTF-8; write another") from None
    if num_bytes > longest:
        raise InvalidArgumentError(
            f"{what} {shown!r} is too long: it has {num_bytes} bytes, and {longest} are the limit; shorten it"
        )


def is_version(folder_name: str) -> bool:
    """Whether a folder of this name is a version: an integer of at most 63 bits, without leading zeros."""
    return bool(_VERSION.fullmatch(folder_name)) and int(folder_name) < 2**63


def find_versions(folder: Path) -> list[int]:
    """The versions of a model, in ascending order. Other folders are logged and ignored.

    Raises:
        InvalidArgumentError: the folder cannot be read.
    """
    try:
        names = sorted(each.name for each in folder.iterdir() if each.is_dir())
    except OSError as error:
        raise InvalidArgumentError(f"model folder {folder} cannot be read: {error.strerror or error}") from error
    others = [
        name
        for name in names
        if not (is_version(name) or name in _FOLDERS_THAT_ARE_NO_VERSIONS or name.startswith("."))
    ]
    for name in others[:_MAX_NAMED]:
        _log.warning("model '%s': %s", encodable(folder.name), _why_no_version(encodable(name)))
    if len(others) > _MAX_NAMED:
        _log.warning("model '%s': ignore %d more", encodable(folder.name), len(others) - _MAX_NAMED)
    return sorted(int(name) for name in names if is_version(name))


def _why_no_version(name: str) -> str:
    # Triton's messages, word for word, for a folder that is not a version.
    why = "contains leading zeros in its directory name"
    if not name.startswith("0"):
        why = f"fails to convert to integral number of 0 to {2**63 - 1}"
    return f"ignore version directory '{name}' which {why}; rename it if it is a version"


def choose_versions(
    policy: ModelVersionPolicy, present: Iterable[int], name: str, hint: Callable[[], str] = lambda: ""
) -> list[int]:
    """The versions that the policy selects, in ascending order. Without a policy: the newest (Triton's `latest {1}`).

    Args:
        policy: the policy.
        present: the existing versions.
        name: the model's name.
        hint: makes the end of the error message if there is no version.

    Raises:
        InvalidArgumentError: the policy selects no existing version.
    """
    newest_first = sorted(present, reverse=True)
    match policy.WhichOneof("policy_choice"):
        case "all":
            chosen = newest_first
        case "specific":
            chosen = [each for each in newest_first if each in policy.specific.versions]
            for version in sorted(set(policy.specific.versions) - set(newest_first)):
                _log.error("version %d is specified for model '%s', but its folder is not present", version, name)
        case "latest":
            chosen = newest_first[: policy.latest.num_versions]
        case _:
            chosen = newest_first[:1]
    if not chosen:
        raise InvalidArgumentError(
            f"at least one version must be available under the version policy of model '{name}': its folder has "
            f"{'versions ' + ', '.join(map(str, sorted(newest_first))) if newest_first else 'no version' + hint()}"
        )
    return sorted(chosen)


def inside(folder: Path, relative: str, what: str) -> Path:
    """Return `folder / relative`, after a check that it does not lead outside `folder`.

    Symbolic links are not resolved here: `links` checks them.

    Args:
        folder: the folder that must contain the path.
        relative: a path from a config or a request.
        what: what the error message calls the source of the path.

    Raises:
        InvalidArgumentError: the path is empty, absolute, too long, or leads outside the folder.
    """
    _check_length(relative, what, _LONGEST_PATH_BYTES)
    path = PurePosixPath(relative)
    for name in path.parts:
        _check_length(name, f"the name in {what}", _LONGEST_NAME_BYTES)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in relative or "\\" in relative:
        raise InvalidArgumentError(f"{what} {relative!r} must be a path that stays within the folder {folder.name!r}")
    return folder / path
