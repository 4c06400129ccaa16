"""Why a load failed, in the words of whoever asked for it and of the index."""

import logging
from collections.abc import Mapping

from triune.core.errors import InternalError, TriuneError, no_memory
from triune.repository.record import ModelRecord

_log = logging.getLogger(__name__)


class LoadFailedError(Exception):
    """A load that failed.

    Attributes:
        error: for whoever asked for it.
        problem, reasons: for the record: see `ModelRecord.fail`.
    """

    def __init__(self, error: TriuneError, problem: str, reasons: Mapping[int, str] | None = None) -> None:
        super().__init__(problem)
        self.error = error
        self.problem = problem
        self.reasons = reasons


def failure_of(record: ModelRecord, error: Exception) -> LoadFailedError:
    """Of whatever a load raised. What nobody has thought of is told in the log in full, and ends nothing but the load.

    Args:
        record: of the model.
        error: a LoadFailedError is returned as it is.
    """
    if isinstance(error, LoadFailedError):
        return error
    if isinstance(error, MemoryError):
        error = no_memory(f"the load of '{record.name}'", "load it again later, or unload others first")
    if not isinstance(error, TriuneError):
        _log.error("model '%s': unexpected error while loading", record.name, exc_info=error)
        error = InternalError(
            f"failed to load '{record.name}': unexpected {type(error).__name__} while loading: {error}"
        )
    return LoadFailedError(error, str(error), {version: str(error) for version in record.versions})
