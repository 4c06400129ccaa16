"""Converts the errors of an ensemble's steps to the client's errors."""

import logging

from triune.config.ensemble.steps import Step
from triune.core.errors import TriuneError, defect_of

_log = logging.getLogger(__name__)


def typed(error: BaseException, model: str) -> TriuneError:
    """Return `error` if it is a TriuneError. Otherwise log it, and return an error that says that `model` failed."""
    if isinstance(error, TriuneError):
        return error
    _log.error("an answer of model '%s' could not be finished", model, exc_info=error)
    return defect_of(f"the answer of model '{model}' failed", error)


def with_step(error: BaseException, step: Step, ensemble: str) -> TriuneError:
    """Make the error "in ensemble 'E', MESSAGE (step)", of the class of `error`. Triton's message begins in the same
    way; the step at its end is Triune's addition.
    """
    own = typed(error, step.model)
    named = type(own)(f"in ensemble '{ensemble}', {own} ({step})")
    named.__cause__ = error
    return named
