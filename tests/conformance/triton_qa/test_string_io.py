"""L0_string_io: strings of every kind of numpy array, as text and as bytes, in JSON and in binary, there and back."""

from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from support.process import Served

triton = pytest.mark.triton("L0_string_io/string_client_test.py::test_unicode_bytes")
# Protocol, whether the output is binary, whether the input is.
FORMS = [
    ("grpc", True, True),
    ("http", True, True),
    ("http", True, False),
    ("http", False, False),
    ("http", False, True),
]
RANDOM = np.random.default_rng(3)
NOT_TEXT = [b"\n\xff" + RANDOM.bytes(70) + b"\x80\x01" for _ in range(8)]


def identity(served: Served, form: tuple[str, bool, bool], array: np.ndarray) -> Any:
    protocol, is_output_binary, is_input_binary = form
    module = {"http": tritonclient.http, "grpc": tritonclient.grpc}[protocol]
    given = module.InferInput("INPUT0", list(array.shape), "BYTES")
    if protocol == "http":
        given.set_data_from_numpy(array, binary_data=is_input_binary)
        outputs = [module.InferRequestedOutput("OUTPUT0", binary_data=is_output_binary)]
    else:
        given.set_data_from_numpy(array)
        outputs = [module.InferRequestedOutput("OUTPUT0")]
    with module.InferenceServerClient(getattr(served, protocol)) as client:
        return client.infer("string_identity", [given], outputs=outputs).as_numpy("OUTPUT0")


@triton
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [np.object_, np.bytes_])
@pytest.mark.parametrize("kind", [str, int])
def test_text(examples: Served, form: tuple[str, bool, bool], dtype: Any, kind: type) -> None:
    array = np.array([kind(each) for each in range(10000, 10008)], dtype=dtype)
    assert (identity(examples, form, array).astype(np.bytes_) == array.astype(np.bytes_)).all()


@triton
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["S78", np.object_, np.bytes_])
def test_bytes_that_are_no_text(examples: Served, form: tuple[str, bool, bool], dtype: Any) -> None:
    array = np.array(NOT_TEXT, dtype=dtype)
    if form[1] and form[2]:
        assert (identity(examples, form, array) == array).all()
        return
    with pytest.raises(InferenceServerException):
        identity(examples, form, array)
