"""Whatever a compiled model's files hold, reading them ends with a program or a typed error."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from property.coreml.test_package_laws import _EDITS, _edited, _programs
from support.compiled_models import core_data
from support.examples import examples
from support.mil_models import ct
from triune.core.errors import InternalError, TriuneError
from triune.coreml.mil import DType
from triune.coreml.mil_text import read_text, write_text
from triune.coreml.package import read_package
from triune.coreml.raising import raise_function
from triune.coreml.read_program import read_program
from triune.coreml.read_values import read_value
from triune.coreml.weights import MemoryWeights, NoWeights

_WORDS = re.findall(
    r"\S+",
    """program ( ) 1.0 1.3 { } [ ] < > , ; = -> ? func main ios16 ios18 tensor list dict tuple state fp16 int32 string
    bool x y const add cond while_loop val name BLOBFILE path offset true -1 0x1p+0 inf "a" 99999999999999999999""",
)


@pytest.fixture(scope="module")
def compiled() -> list[tuple[str, bytes, bytes]]:
    """Texts, descriptions and weights."""
    found: list[tuple[str, bytes, bytes]] = []
    for data, weights in _programs():
        specification: Any = ct.proto.Model_pb2.Model()
        specification.ParseFromString(data)
        found.append((write_text(specification.mlProgram), core_data(specification), weights))
    return found


def _outcome(text: bytes, weights: bytes) -> str:
    def read() -> None:
        proto = read_text(text.decode("utf-8", "replace"), "model.mil")
        read_program(proto, MemoryWeights({"weight.bin": weights}), "model.mil")

    return _outcome_of(read)


def _outcome_of(work: Callable[[], Any]) -> str:
    try:
        work()
    except InternalError:
        raise
    except TriuneError as error:
        return str(error) or "no message"
    return ""


@examples(150)
@given(which=st.integers(0, 2), edits=_EDITS)
def test_a_spoiled_text_is_refused_or_read(
    compiled: list[tuple[str, bytes, bytes]], which: int, edits: list[tuple[str, int, int]]
) -> None:
    text, _, weights = compiled[which]
    assert _outcome(_edited(text.encode(), edits), weights) != "no message"


@examples(150)
@given(which=st.integers(0, 2), at=st.lists(st.tuples(st.integers(0, 2**20), st.sampled_from(_WORDS)), max_size=4))
def test_words_in_the_wrong_place(
    compiled: list[tuple[str, bytes, bytes]], which: int, at: list[tuple[int, str]]
) -> None:
    text, _, weights = compiled[which]
    words = text.split(" ")
    for where, word in at:
        words[where % len(words)] = word
    assert _outcome(" ".join(words).encode(), weights) != "no message"


@examples(150)
@given(st.lists(st.sampled_from(_WORDS), max_size=200))
def test_any_words(words: list[str]) -> None:
    assert _outcome(" ".join(words).encode(), b"").startswith("'model.mil'")


@examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(which=st.integers(0, 2), edits=_EDITS)
def test_a_spoiled_description_is_refused_or_read(
    compiled: list[tuple[str, bytes, bytes]], which: int, edits: list[tuple[str, int, int]], tmp_path: Path
) -> None:
    text, description, weights = compiled[which]
    folder = tmp_path / "m.mlmodelc"
    (folder / "weights").mkdir(parents=True, exist_ok=True)
    (folder / "model.mil").write_text(text)
    (folder / "weights" / "weight.bin").write_bytes(weights)
    (folder / "coremldata.bin").write_bytes(_edited(description, edits))
    assert _outcome_of(lambda: raise_function(read_package(folder))) != "no message"


@examples(200)
@given(
    st.sampled_from([DType.FP16, DType.FP32, DType.FP64, DType.BF16, DType.INT8, DType.UINT16, DType.UINT64]),
    st.binary(min_size=64, max_size=64),
)
def test_all_numbers_are_read_exactly(dtype: DType, data: bytes) -> None:
    numbers = np.frombuffer(data, dtype.numpy)
    is_float = dtype in (DType.FP16, DType.FP32, DType.FP64, DType.BF16)
    texts = [float(each).hex() if is_float else str(each) for each in numbers]
    kind = f"tensor<{dtype.value}, [{len(numbers)}]>"
    text = f"program(1.3) {{ func f<ios18>() {{ {kind} w = const()[val = {kind}([{', '.join(texts)}])]; }} -> (w); }}"
    operation: Any = read_text(text, "m").functions["f"].block_specializations["CoreML8"].operations[0]
    found = read_value(operation.attributes["val"], NoWeights(), "w").array
    assert found.dtype == dtype.numpy
    # NumPy does not know bfloat16's NaN from other numbers.
    exact = np.float64 if is_float else dtype.numpy
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(found.astype(exact), numbers.astype(exact))
