"""Load failures: the error for the client, and the reasons for the repository index."""

import logging
from collections.abc import Mapping

from triune.config.limits import LOAD_SECONDS_PARAMETER
from triune.core.errors import InternalError, TriuneError, UnavailableError, no_memory
from triune.core.threads import lacks_thread, no_thread
from triune.repository.record import ModelRecord

_log = logging.getLogger(__name__)


class LoadFailedError(Exception):
    """A load that failed.

    Attributes:
        error: the error for the client.
        problem, reasons: the reasons to store in the model's record: see `ModelRecord.fail`.
    """

    def __init__(self, error: TriuneError, problem: str, reasons: Mapping[int, str] | None = None) -> None:
        super().__init__(problem)
        self.error = error
        self.problem = problem
        self.reasons = reasons


def failure_of(record: ModelRecord, error: Exception) -> LoadFailedError:
    """Convert any error of a load to a LoadFailedError. Unexpected errors are logged with their traceback.

    Args:
        record: the model's record.
        error: the error; a LoadFailedError is returned unchanged.
    """
    if isinstance(error, LoadFailedError):
        return error
    if lacks_thread(error):
        error = no_thread(f"the load of '{record.name}'", error)
    if isinstance(error, MemoryError):
        error = no_memory(f"the load of '{record.name}'", "load it again later, or unload others first")
    if not isinstance(error, TriuneError):
        _log.error("model '%s': unexpected error while loading", record.name, exc_info=error)
        error = InternalError(
            f"failed to load '{record.name}': unexpected {type(error).__name__} while loading: {error}"
        )
    return LoadFailedError(error, str(error), {version: str(error) for version in record.versions})


def give_up_late(record: ModelRecord, seconds: float) -> None:
    """Give up a load that has exceeded its time limit."""
    record.give_up(
        UnavailableError(
            f"failed to load '{record.name}': it was not loaded within {seconds:g} s; allow it more by "
            f"--load-timeout-secs, or by its parameter '{LOAD_SECONDS_PARAMETER}'"
        )
    )


def unloaded_error(name: str) -> UnavailableError:
    """Make the error of a load that an unload has cancelled."""
    return UnavailableError(f"failed to load '{name}': it was unloaded meanwhile")


def stopping_error(name: str) -> UnavailableError:
    """Make the error of a load that the end of the server has cancelled."""
    return UnavailableError(f"failed to load '{name}': the server is stopping")
