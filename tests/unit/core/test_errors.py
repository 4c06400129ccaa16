import pytest

from triune.core.errors import (
    InternalError,
    InvalidArgumentError,
    UnavailableError,
    UnsupportedError,
    forget_frames,
    reworded,
)
from triune.core.threads import NoThreadError, lacks_thread
from triune.hosting.process import WorkerEndedError


def fail(first: Exception, second: Exception, third: Exception) -> None:
    """Raise the third error, which the second caused, while the first was handled."""
    try:
        try:
            raise first
        except InvalidArgumentError:
            raise second  # noqa: B904 - its context is the first one
    except InternalError as error:
        raise third from error


def test_frames_of_an_error_and_of_all_its_causes_are_forgotten() -> None:
    errors = InvalidArgumentError("first"), InternalError("second"), ValueError("third")
    with pytest.raises(ValueError, match="third"):
        fail(*errors)
    assert all(each.__traceback__ is not None for each in errors)
    forget_frames(errors[-1])
    for each in errors:
        assert (each.__traceback__, each.__cause__, each.__context__) == (None, None, None)


def test_an_error_of_any_constructor_can_be_reworded() -> None:
    ended = reworded(WorkerEndedError("the process was killed", "was killed by SIGKILL"), "load failed")
    assert isinstance(ended, WorkerEndedError)
    assert (f"{ended}", ended.how) == ("load failed", "was killed by SIGKILL")
    assert reworded(UnavailableError("later", retry_after_seconds=7), "x").retry_after_seconds == 7  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("can't start new thread"), True),
        (BlockingIOError(11, "Resource temporarily unavailable"), True),
        (NoThreadError("the system has no thread"), True),
        (UnsupportedError("OpenVINO cannot compile the decoder: Resource temporarily unavailable"), True),
        (RuntimeError("no such file"), False),
    ],
)
def test_a_lack_of_threads_is_recognised_in_causes_too(error: Exception, expected: bool) -> None:
    assert lacks_thread(error) is expected
    outer = InternalError("the load failed")
    outer.__cause__ = error
    assert lacks_thread(outer) is expected
