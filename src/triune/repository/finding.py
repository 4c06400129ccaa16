"""Find the models in the repositories: each is a folder. Folders that cannot be models are logged and skipped."""

import errno
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from triune.core.errors import InvalidArgumentError

_log = logging.getLogger(__name__)

TWICE = "model appears in two or more repositories"


@dataclass(frozen=True, slots=True)
class Found:
    """A model's name, and its folders.

    Attributes:
        folders: the model's folder, or several if more than one repository has a model of this name.
        problem: why it cannot be loaded; empty if it can.
        is_remembered: True if its repository cannot be read now, but contained the model when it was last read.
    """

    folders: tuple[Path, ...]
    problem: str = ""
    is_remembered: bool = False


def find_models(repositories: Sequence[Path]) -> dict[str, Found]:
    """The models of all repositories, by name. Folders whose name starts with a dot are ignored.

    In a name that is not UTF-8, the invalid bytes are escaped with a backslash.

    Raises:
        InvalidArgumentError: a repository is not a folder, or cannot be read.
    """
    return _joined([_list(repository) for repository in repositories])


class Finder:
    """Lists the repositories whenever it is asked to. If one cannot be read any more, its last listing is used."""

    def __init__(self, repositories: Sequence[Path]) -> None:
        self._repositories = repositories
        self._listed: dict[Path, dict[str, Found]] = {}
        self._problems: dict[Path, str] = {}

    def find(self) -> dict[str, Found]:
        """Find the models as `find_models` does. May be called from any thread.

        Raises:
            InvalidArgumentError: a repository cannot be read, and never could be.
        """
        for repository in self._repositories:
            try:
                self._listed[repository] = _list(repository)
            except InvalidArgumentError as error:
                if repository not in self._listed:
                    raise
                held = self._listed[repository]
                self._listed[repository] = {name: replace(each, is_remembered=True) for name, each in held.items()}
                if self._problems.get(repository) != str(error):
                    self._problems[repository] = str(error)
                    _log.error("%s; its models are served as before", error)
            else:
                if self._problems.pop(repository, None):
                    _log.info("model repository %s can be read again", repository)
        return _joined([self._listed[repository] for repository in self._repositories])


def _list(repository: Path) -> dict[str, Found]:
    found: dict[str, Found] = {}
    above = _Ancestors(repository)
    try:
        # `os.scandir` is used since its entries know whether they are folders, without a system call for each.
        with os.scandir(repository) as entries:
            for each in sorted(entries, key=lambda each: each.name):
                problem = _problem_of(each, above)
                if problem is not None:
                    name = os.fsencode(each.name).decode(errors="backslashreplace")
                    found[name] = Found((repository / each.name,), problem)
    except OSError as error:
        raise InvalidArgumentError(
            f"model repository {repository} cannot be read: {error.strerror or error}; name a folder that exists"
        ) from error
    return found


class _Ancestors:
    """A repository and its parent folders."""

    def __init__(self, repository: Path) -> None:
        self._repository = repository
        self._identities: set[tuple[int, int]] | None = None

    def has(self, folder: os.stat_result) -> bool:
        """Whether a folder is the repository or one of its parents."""
        if self._identities is None:
            real = self._repository.resolve()
            statuses = [each.stat() for each in (real, *real.parents)]
            self._identities = {(each.st_dev, each.st_ino) for each in statuses}
        return (folder.st_dev, folder.st_ino) in self._identities


def _problem_of(entry: os.DirEntry[str], above: _Ancestors) -> str | None:
    """Why an entry cannot be loaded; "" if it can; None if it is not a model."""
    if entry.name.startswith("."):
        return None
    try:
        if not entry.is_dir():
            # `is_dir` is False for a link that leads nowhere, too. Call `stat`, which raises the error for it.
            if entry.is_symlink():
                entry.stat()
            return None
        entry.name.encode()
        if entry.is_symlink() and above.has(entry.stat()):
            # Refuse a link to a parent of the repository: the files of this model would include those of all models.
            return "its folder is a link to a folder that holds the repository; link the folder of one model"
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return f"its folder is a link that leads nowhere: {error.strerror}"
        # Count the entry as a model: the error may be temporary, a served model goes on serving, and a new load reports
        # the error.
        return ""
    except UnicodeEncodeError:
        return "the name of its folder is not UTF-8, so that no client can ask for it; rename the folder"
    return ""


def _joined(listed: Sequence[Mapping[str, Found]]) -> dict[str, Found]:
    models: dict[str, Found] = {}
    for each in listed:
        for name, found in each.items():
            before = models.get(name)
            models[name] = found if before is None else Found((*before.folders, *found.folders), TWICE)
    return models
