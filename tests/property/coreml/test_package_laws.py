"""Whatever bytes a package holds, reading and raising it ends with a result or a typed error, and little memory."""

import resource
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from support.examples import examples
from support.mil_programs import make_specification, mb
from triune.core.errors import InternalError, TriuneError
from triune.coreml.package import read_specification
from triune.coreml.raising import raise_function

_MEBIBYTE = 1 << 20
_MOST_MEMORY_BYTES = 512 * _MEBIBYTE


def _programs() -> list[tuple[bytes, bytes]]:
    """Specifications and their weights: of constants of all kinds, blocks, and compressed weights."""
    x = np.zeros((1, 3, 8, 8), np.float32)
    weight = np.arange(81, dtype=np.float32).reshape(3, 3, 3, 3)

    def layers(given: Any) -> Any:
        y = mb.conv(x=given.x, weight=weight, pad_type="same", bias=np.ones(3, np.float32))
        y = mb.resize_bilinear(x=y, target_size_height=4, target_size_width=4, sampling_mode="DEFAULT")
        y = mb.slice_by_index(x=y, begin=[0, 0, 1, 0], end=[0, 0, 3, 0], end_mask=[True, True, False, True])
        return mb.gather(x=y, indices=[0, 1], axis=1, batch_dims=0)

    def blocks(given: Any) -> Any:
        largest = mb.reduce_max(x=given.x)
        return mb.cond(
            pred=mb.greater(x=largest, y=np.float32(1)),
            _true_fn=lambda: mb.add(x=given.x, y=np.float32(1)),
            _false_fn=lambda: mb.relu(x=given.x),
        )

    def compressed(given: Any) -> Any:
        indices = np.arange(64, dtype=np.uint8)
        table = np.arange(4, dtype=np.float32)
        dense = mb.constexpr_lut_to_dense(indices=indices, lut=table, shape=np.array([16, 16], np.uint32))
        flat = mb.reshape(x=given.x, shape=[12, 16])
        return mb.matmul(x=flat, y=dense)

    return [
        (specification.SerializeToString(), weights.get("weight.bin", b""))
        for build, target in ((layers, "iOS17"), (blocks, "iOS15"), (compressed, "iOS16"))
        for specification, weights in [make_specification(build, {"x": x}, target)]
    ]


@pytest.fixture(scope="module")
def programs() -> list[tuple[bytes, bytes]]:
    return _programs()


_EDITS = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "repeat", "set"]), st.integers(0, 2**20), st.integers(0, 255)),
    min_size=1,
    max_size=6,
)


def _edited(data: bytes, edits: list[tuple[str, int, int]]) -> bytes:
    spoiled = bytearray(data)
    for kind, where, value in edits:
        if not spoiled:
            break
        at = where % len(spoiled)
        match kind:
            case "flip":
                spoiled[at] ^= 1 << (value % 8)
            case "set":
                spoiled[at] = value
            case "cut":
                del spoiled[at : at + value + 1]
            case _:
                spoiled[at:at] = spoiled[at : at + value]
    return bytes(spoiled)


def _outcome(specification: bytes, weights: bytes) -> str:
    try:
        raise_function(read_specification(specification, {"weight.bin": weights}))
    except InternalError:
        raise
    except TriuneError as error:
        return str(error) or "no message"
    return ""


@examples(150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(which=st.integers(0, 2), edits=_EDITS)
def test_a_spoiled_specification_is_refused_or_read(
    programs: list[tuple[bytes, bytes]], which: int, edits: list[tuple[str, int, int]]
) -> None:
    specification, weights = programs[which]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert _outcome(_edited(specification, edits), weights) != "no message"
    # Linux counts in kibibytes.
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < _MOST_MEMORY_BYTES


@examples(80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(which=st.integers(0, 2), edits=_EDITS)
def test_spoiled_weights_are_refused_or_read(
    programs: list[tuple[bytes, bytes]], which: int, edits: list[tuple[str, int, int]]
) -> None:
    specification, weights = programs[which]
    assert _outcome(specification, _edited(weights, edits)) != "no message"


@examples(80)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_read(data: bytes) -> None:
    assert _outcome(data, data) not in ("", "no message")


def test_what_is_not_spoiled_is_read(programs: list[tuple[bytes, bytes]]) -> None:
    for specification, weights in programs:
        assert _outcome(specification, weights) == ""
