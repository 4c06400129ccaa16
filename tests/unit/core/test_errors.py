import pytest

from triune.core.errors import InternalError, InvalidArgumentError, forget_frames


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
