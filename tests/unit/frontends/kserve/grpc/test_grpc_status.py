import logging

import grpc
import pytest

from triune.core import errors
from triune.frontends.kserve.grpc.status import MAX_DETAILS_BYTES, as_triune_error, code_of, details_of

CODES = {
    errors.InvalidArgumentError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.PayloadTooLargeError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    errors.UnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.NoMemoryError: grpc.StatusCode.UNAVAILABLE,
    errors.NoRoomError: grpc.StatusCode.UNAVAILABLE,
    errors.UnitLostError: grpc.StatusCode.UNAVAILABLE,
    errors.UnsupportedError: grpc.StatusCode.UNIMPLEMENTED,
    errors.UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    errors.NotRunError: grpc.StatusCode.UNAVAILABLE,
    errors.RestrictedError: grpc.StatusCode.UNAVAILABLE,
    errors.CancelledError: grpc.StatusCode.CANCELLED,
    errors.InternalError: grpc.StatusCode.INTERNAL,
    errors.TriuneError: grpc.StatusCode.UNKNOWN,
}


def test_every_error_of_the_tree_has_its_code() -> None:
    tree = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.TriuneError)]
    assert set(tree) == set(CODES)
    for kind, code in CODES.items():
        assert code_of(kind("why")) is code


def test_details_fit_into_trailers() -> None:
    assert details_of(errors.NotFoundError("short")) == "short"
    assert details_of(errors.NotFoundError()) == "NotFoundError"
    long = details_of(errors.NotFoundError("日" * 10_000))
    assert len(long.encode()) <= MAX_DETAILS_BYTES + 4
    assert long.startswith("日日")
    assert long.endswith("日 ...")
    assert details_of(errors.NotFoundError("a\udcffb")) == "a?b"


def test_defect_is_logged_and_internal(caplog: pytest.LogCaptureFixture) -> None:
    known = errors.NotFoundError("x")
    assert as_triune_error(known, "ModelInfer") is known
    assert not caplog.records
    with caplog.at_level(logging.ERROR):
        error = as_triune_error(KeyError("k"), "ModelInfer")
    assert isinstance(error, errors.InternalError)
    assert "KeyError" in str(error)
    assert caplog.records[0].exc_info is not None
