"""Products and convolutions on the units of this machine, against numpy."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import triune
from triune.api.direct import executables as room
from triune.api.direct import products
from triune.api.direct.accelerate import AccelerateProduct
from triune.api.direct.crossovers import SIZES, work_of
from triune.api.direct.products import Direct
from triune.core.errors import InvalidArgumentError, UnavailableError, UnsupportedError
from triune.core.units import Unit
from triune.runtimes.machine import Machine, this_machine

DTYPES = {"fp32": np.float32, "fp16": np.float16, "bf16": ml_dtypes.bfloat16, "int8": np.int8}
ERRORS = {"fp32": 1e-5, "fp16": 2e-3, "bf16": 2e-2, "int8": 0.0}


@pytest.fixture(scope="module")
def machine() -> Machine:
    return this_machine()


@pytest.fixture(scope="module")
def direct(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Direct]:
    found = Direct(machine, tmp_path_factory.mktemp("direct"))
    yield found
    found.close()


def arrays(dtype: str, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    random = np.random.default_rng(3)
    if dtype == "int8":
        return [random.integers(-128, 128, shape).astype(np.int8) for shape in shapes]
    return [random.standard_normal(shape).astype(DTYPES[dtype]) for shape in shapes]


def check(found: np.ndarray, expected: np.ndarray, dtype: str, *, error: float | None = None) -> None:
    assert found.shape == expected.shape
    assert found.dtype == (np.int32 if dtype == "int8" else DTYPES[dtype])
    allowed = (ERRORS[dtype] if error is None else error) * max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(found.astype(np.float64), expected, rtol=0, atol=allowed)


def unit_of(direct: Direct, name: str) -> Any:
    try:
        return direct.unit(Unit(name))
    except UnsupportedError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["cpu", "amx", "gpu"])
def test_products(name: str, dtype: str, direct: Direct) -> None:
    unit = unit_of(direct, name)
    # amx computes floats in bf16.
    error = 2e-2 if name == "amx" and dtype != "int8" else None
    for left, right in (
        ((5, 7), (7, 3)),
        ((2, 3, 5, 7), (7, 3)),
        ((4, 5, 7), (4, 7, 3)),
        ((2, 1, 5, 7), (3, 7, 3)),
        ((7,), (7, 3)),
        ((5, 7), (7,)),
        ((7,), (7,)),
        ((0, 7), (7, 3)),
        ((5, 0), (0, 3)),
        ((3, 2500), (2500, 2)),
    ):
        a, b = arrays(dtype, left, right)
        check(unit.matmul(a, b), np.matmul(a.astype(np.float64), b.astype(np.float64)), dtype, error=error)


@pytest.mark.parametrize("name", ["cpu", "amx", "gpu"])
def test_sums_of_int8_are_exact(name: str, direct: Direct) -> None:
    unit = unit_of(direct, name)
    random = np.random.default_rng(0)
    a, b = (random.integers(100, 128, shape).astype(np.int8) for shape in ((3, 100_000), (100_000, 2)))
    np.testing.assert_array_equal(unit.matmul(a, b), a.astype(np.int64) @ b.astype(np.int64))
    x, w = (random.integers(100, 128, shape).astype(np.int8) for shape in ((1, 300, 5, 5), (2, 300, 3, 3)))
    expected = np.einsum("bchwij,fcij->bfhw", windows(x.astype(np.int64), 3), w.astype(np.int64))
    np.testing.assert_array_equal(unit.conv2d(x, w), expected)


def windows(x: np.ndarray, size: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(2, 3))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["cpu", "amx", "gpu"])
def test_convolutions(name: str, dtype: str, direct: Direct) -> None:
    unit = unit_of(direct, name)
    error = 2e-2 if name == "amx" and dtype != "int8" else None
    x, w = arrays(dtype, (2, 4, 9, 8), (6, 4, 3, 3))
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (2, 2)))
    expected = np.einsum("bchwij,fcij->bfhw", windows(padded, 3), w.astype(np.float64))
    check(unit.conv2d(x, w, padding=(1, 2)), expected, dtype, error=error)
    check(unit.conv2d(x, w, padding=(1, 2), strides=(2, 3)), expected[:, :, ::2, ::3], dtype, error=error)
    (grouped,) = arrays(dtype, (6, 2, 3, 3))
    halves = [
        np.einsum("bchwij,fcij->bfhw", windows(x[:, part].astype(np.float64), 3), grouped[rows].astype(np.float64))
        for part, rows in ((slice(0, 2), slice(0, 3)), (slice(2, 4), slice(3, 6)))
    ]
    check(unit.conv2d(x, grouped, groups=2), np.concatenate(halves, axis=1), dtype, error=error)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.ones((2, 3), np.float32), np.ones((4, 5), np.float32), r"last axis of 'a' has 3 .* 'b' 4.*\[2,3\]"),
        (np.ones((2, 3)), np.ones((3, 2)), "'a' has elements of type float64"),
        (np.ones((2, 3), np.float32), np.ones((3, 2), np.float16), "'a' is float32 and 'b' is float16"),
        (np.float32(1), np.ones((3, 2), np.float32), "'a' is float32; pass a numpy array"),
        (np.ones((), np.float32), np.ones((3, 2), np.float32), "at least one axis"),
        ([[1.0]], np.ones((1, 2), np.float32), "'a' is list; pass a numpy array"),
        (np.ones((2, 4, 3), np.float32), np.ones((3, 3, 2), np.float32), "batches .* cannot be broadcast"),
        (np.ones((1, 200_000), np.int8), np.ones((200_000, 1), np.int8), "131071; split the axis"),
    ],
)
def test_bad_operands(a: Any, b: Any, message: str, direct: Direct) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        direct.unit(Unit.CPU).matmul(a, b)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strides": (0, 1)}, r"strides is \(0, 1\)"),
        ({"padding": (1,)}, "padding is"),
        ({"dilations": (1, 9)}, "a kernel of 19 does not fit 8 elements with 0 zeros"),
        ({"groups": 2}, "4 channels and 6 filters do not fit 2 groups of 4 channels"),
        ({"x": np.ones((4, 9, 8), np.float32)}, "four axes"),
        ({"w": np.ones((6, 4, 3, 3), np.float16)}, "'x' is float32 and 'w' is float16"),
    ],
)
def test_bad_convolutions(change: dict[str, Any], message: str, direct: Direct) -> None:
    x, w = arrays("fp32", (2, 4, 9, 8), (6, 4, 3, 3))
    given = {"x": x, "w": w, **change}
    with pytest.raises(InvalidArgumentError, match=message):
        direct.unit(Unit.CPU).conv2d(**given)


def test_a_result_that_the_memory_does_not_hold_is_refused(direct: Direct) -> None:
    a = np.broadcast_to(np.float32(1), (10_000_000, 2))
    b = np.broadcast_to(np.float32(1), (2, 10_000_000))
    with pytest.raises(UnavailableError, match="takes 400000000000000 bytes"):
        direct.unit(Unit.CPU).matmul(a, b)


class Shared:
    """An array of another library."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.num_reads = 0

    def __dlpack__(self, **options: Any) -> Any:
        self.num_reads += 1
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


def test_arrays_of_other_libraries_are_read_where_they_are(direct: Direct) -> None:
    a, b = arrays("fp32", (4, 6), (6, 2))
    shared = Shared(a)
    check(direct.unit(Unit.CPU).matmul(shared, b), a.astype(np.float64) @ b, "fp32")
    assert shared.num_reads == 1
    assert np.shares_memory(products.array_of(shared, "a"), a)


def test_views_that_are_not_contiguous(direct: Direct) -> None:
    a, b = arrays("fp32", (6, 4), (2, 6))
    check(direct.unit(Unit.CPU).matmul(a.T, b.T), a.T.astype(np.float64) @ b.T, "fp32")


def test_what_is_compiled_is_bounded(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST_KEPT", 2)
    direct = Direct(machine, tmp_path)
    unit = direct.unit(Unit.CPU)
    for _ in range(2):
        for dtype in DTYPES:
            a, b = arrays(dtype, (3, 4), (4, 2))
            check(unit.matmul(a, b), a.astype(np.float64) @ b.astype(np.float64), dtype)
            assert len(direct._executables) <= 2
    # Other sizes are computed by what is compiled.
    for size in (1, 5, 60):
        a, b = arrays("int8", (size, 4), (4, size))
        check(unit.matmul(a, b), a.astype(np.float64) @ b.astype(np.float64), "int8")
    assert len(direct._executables) == 2
    direct.close()
    assert len(direct._executables) == 0


def test_the_unit_is_chosen_by_size_and_precision(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    direct = Direct(machine, tmp_path)
    if Unit.AMX not in direct._candidates():
        pytest.skip("this machine has no AMX")
    monkeypatch.setattr(products, "_CHOSEN", (Unit.CPU, Unit.AMX))
    measured: list[str] = []

    def measure(self: Direct, dtype: str) -> Any:
        measured.append(dtype)
        return {
            shape: {size: {Unit.CPU: 1e-9 * work_of(shape, size), Unit.AMX: 1e-3} for size in sizes}
            for shape, sizes in SIZES.items()
        }

    monkeypatch.setattr(Direct, "_measure", measure)
    monkeypatch.setattr("os.getloadavg", lambda: (50.0, 0.0, 0.0))
    a, b = arrays("fp32", (200, 200), (200, 200))
    exact = a.astype(np.float64) @ b
    # amx computes fp32 in bf16, so that it is not chosen.
    check(direct.matmul(a, b), exact, "fp32")
    assert measured == []
    rounded = direct.matmul(a, b, "bf16")
    assert 1e-3 < np.abs(rounded - exact).max() < 1
    check(direct.matmul(a[:20], b[:, :20], "bf16"), exact[:20, :20], "fp32")
    assert measured == ["fp32"]
    assert "a load of 50.0 on" in caplog.text
    # Another process finds what was measured.
    other = Direct(machine, tmp_path)
    assert other.best("fp32", "bf16")["square"].units == (Unit.CPU, Unit.AMX)
    assert measured == ["fp32"]
    with pytest.raises(InvalidArgumentError, match="there is no precision 'fp8'"):
        direct.matmul(a, b, "fp8")
    direct.close()
    other.close()


def test_the_package_offers_both() -> None:
    a, b = arrays("fp32", (3, 4), (4, 2))
    check(triune.unit("cpu").matmul(a, b), a.astype(np.float64) @ b, "fp32")
    with pytest.raises(InvalidArgumentError, match="there is no unit 'npu'"):
        triune.unit("npu")
    assert repr(triune.unit("cpu")) == "<triune.unit cpu>"


def test_the_page_is_true() -> None:
    page = (Path(__file__).parents[4] / "docs/direct.md").read_text()
    names: dict[str, Any] = {}
    exec(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1], names)
    assert names["y"].shape == (2, 8, 16, 16)
    assert f"up to {room.MOST_KEPT} executables" in page


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_by_accelerate_are_those_of_numpy(dtype: str) -> None:
    a, b = arrays(dtype, (2, 5, 7), (2, 7, 3))
    found = AccelerateProduct().run({"x0": a, "x1": b}, ["y"])["y"]
    check(found, np.matmul(a.astype(np.float64), b.astype(np.float64)), dtype)
