"""Whether a test that failed could have passed: its comparison is asked again, with other answers than Triune's.

A case cannot pass where one of these is seen. Whatever is in doubt is a failure of ours.

- "unpredicted": it fails alike where nothing predicts. What it asserts is about the converter.
- "nearest": it fails though it is given the very values that it expects, each as the nearest one that the program can
  give: an output is of its declared type, and where it is a cast of fp16 values it is one of those.
- "exact": it fails with each operation of the program computed in fp64 and rounded to its declared type, by less than
  a hundredth; Triune's answers agree with those to the last place; and the case passes with fp32 in the place of fp16.
  So no operation is misunderstood: what is expected was rounded elsewhere than the program rounds.
"""

import inspect
import random
import sys
import warnings
import zlib
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import pytest

from triune.core.errors import UnsupportedError
from triune.coreml import anywhere
from triune.coreml.interpreter import Interpreter
from triune.coreml.mil import Array, DType, TensorType
from triune.coreml.model import Model
from triune.coreml.package import Package, read_package

Verdict = Literal["", "unpredicted", "nearest", "exact"]
_COMPARE = "compare_backend"
_DIFFERENCE = "Not equal to tolerance"
_FLOATS = (DType.FP16, DType.FP32)
# Of the largest expected value: eight places of fp16.
_LARGEST_ROUNDING = 2.0**-7
_IN_FP32 = {"fp16": "fp32", "float16": "float32"}


def seed(item: pytest.Item) -> None:
    """The same random numbers for a case each time it runs, whatever ran before it."""
    number = zlib.crc32(item.nodeid.encode())
    random.seed(number)
    np.random.seed(number)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(number)


class Trials:
    """Judges the tests that fail.

    coremltools' `compare_backend` predicts, and compares with what is expected. Where it finds a difference it is asked
    again, as it is, about a model whose predictions are chosen here.
    """

    def __init__(self, executor: Literal["onnxruntime", "reference"]) -> None:
        self._executor = executor
        # How the last comparison of the test that runs failed, and what is to be said of it.
        self._difference: BaseException | None = None
        self._found: Verdict = ""
        self._num_compared = 0

    def install(self) -> None:
        """To be called when the tests are imported: they import `compare_backend` by name."""
        original: Any = sys.modules["coremltools.converters.mil.testing_utils"].compare_backend
        parameters = inspect.signature(original)

        def compare(*args: Any, **options: Any) -> Any:
            given = parameters.bind(*args, **options).arguments
            model = given["mlmodel"] = _Model(given["mlmodel"])
            self._num_compared += 1
            try:
                return original(**given)
            except AssertionError as error:
                if _is_difference(error):
                    self._difference, self._found = error, _judge(original, given, model)
                raise

        for name, module in list(sys.modules.items()):
            if name.startswith("coremltools.") and vars(module).get(_COMPARE) is original:
                setattr(module, _COMPARE, compare)

    def verdict(self, item: Any, error: BaseException) -> Verdict:
        """Why no runtime can pass the test that just failed; "" if one could, as far as is known."""
        if error is not self._difference:
            if not isinstance(error, AssertionError) or _is_difference(error):
                return ""
            with self._nothing_predicts():
                other = _again(item, {})
            return "unpredicted" if _says(other) == _says(error) else ""
        if self._found != "exact":
            return self._found
        wider = {name: _in_fp32(value) for name, value in item.funcargs.items()}
        if all(value is item.funcargs[name] for name, value in wider.items()):
            return ""
        num_before = self._num_compared
        return "exact" if _again(item, wider) is None and self._num_compared > num_before else ""

    @contextmanager
    def _nothing_predicts(self) -> Generator[None]:
        anywhere.uninstall()
        try:
            yield
        finally:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                anywhere.install(self._executor)


def _again(item: Any, arguments: Mapping[str, Any]) -> BaseException | None:
    """What a test raises with other arguments and the same random numbers."""
    before = dict(item.funcargs)
    seed(item)
    try:
        item.funcargs.update(arguments)
        item.runtest()
    except (Exception, pytest.skip.Exception, pytest.fail.Exception) as error:
        return error
    finally:
        item.funcargs.update(before)
    return None


class _Model:
    """coremltools' model, and its predictions, which may be chosen."""

    def __init__(self, mlmodel: Any, outputs: Mapping[str, Any] | None = None) -> None:
        self._mlmodel = mlmodel
        self.outputs = outputs
        self.data: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mlmodel, name)

    def predict(self, data: Any, state: Any = None) -> Mapping[str, Any]:
        self.data = data
        if self.outputs is None:
            self.outputs = self._mlmodel.predict(data, state=state)
        return self.outputs


def _judge(compare: Any, given: Mapping[str, Any], ours: _Model) -> Verdict:
    """Whether the comparison `compare(**given)`, which found that `ours` differs, finds that of better answers too."""
    package = read_package(ours.package_path)
    function = ours.function_name or package.description.default_function
    expected = given["expected_outputs"]
    if _differs(compare, given, _Model(ours, _nearest(package, function, expected))):
        return "nearest"
    if given.get("state") is not None:
        # Its buffers have changed.
        return ""
    try:
        interpreter = Interpreter(package, function, is_exact=True)
        exact = Model(package, function=function, executor=interpreter).predict(ours.data)
    except UnsupportedError:
        return ""
    differs = _differs(compare, given, _Model(ours, exact))
    return "exact" if differs and _agree(ours.outputs or {}, exact, expected) else ""


def _differs(compare: Any, given: Mapping[str, Any], model: _Model) -> bool:
    try:
        compare(**{**given, "mlmodel": model})
    except AssertionError as error:
        return _is_difference(error)
    return False


def _nearest(package: Package, function: str, expected: Mapping[str, Any]) -> dict[str, Any]:
    """The expected values, each as the nearest one that the output can be."""
    names = {_plain(each.name): each for each in _outputs(package, function)}
    outputs: dict[str, Any] = {}
    for name, value in expected.items():
        output = names.get(_plain(name))
        is_float = isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind == "f"
        if output is None or not is_float or output.dtype not in _FLOATS:
            outputs[name] = value
            continue
        array = np.asarray(value)
        narrowest = np.float16 if output.is_half else np.float32
        largest = np.finfo(narrowest).max
        # Rounding goes to the nearest number, but for those beyond the largest.
        within = np.where(np.isfinite(array), np.clip(array.astype(np.float64), -largest, largest), array)
        outputs[name] = within.astype(narrowest).astype(output.dtype.numpy)
    return outputs


class _Output:
    """An output of a function, and whether its values are all of fp16: it is of that type, or a cast of it."""

    def __init__(self, name: str, dtype: DType, *, is_half: bool) -> None:
        self.name = name
        self.dtype = dtype
        self.is_half = is_half


def _outputs(package: Package, function: str) -> Iterator[_Output]:
    block = package.function(function).block
    made = {output.name: (operation, output.type) for operation in block.operations for output in operation.outputs}
    for name in block.outputs:
        if name not in made or not isinstance(made[name][1], TensorType):
            continue
        dtype, is_half, source = made[name][1].dtype, False, name
        while source in made:
            operation, kind = made[source]
            if not isinstance(kind, TensorType) or kind.dtype not in _FLOATS:
                break
            is_half = is_half or kind.dtype is DType.FP16
            if operation.op != "cast":
                break
            source = getattr(operation.inputs["x"][0], "name", "")
        yield _Output(name, dtype, is_half=is_half)


def _plain(name: str) -> str:
    """As Core ML spells names."""
    return "".join(each if each.isalnum() else "_" for each in name)


def _agree(ours: Mapping[str, Any], exact: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    """Whether exact answers are ours but for their last place, and the expected ones but for a rounding."""
    wanted = {_plain(name): value for name, value in expected.items()}
    for name, array in exact.items():
        value = wanted.get(_plain(name))
        if not isinstance(array, np.ndarray) or not _is_near(ours[name], array, _last_places(array)):
            return False
        if value is not None and not _is_near(value, array, _LARGEST_ROUNDING * np.max(np.abs(value), initial=0)):
            return False
    return True


def _last_places(exact: Array) -> Array:
    """The distance to the next number, where all are of fp16; else sixteen times that of fp32 at the largest."""
    if exact.dtype.kind != "f":
        return np.zeros(exact.shape)
    halves = exact.astype(np.float16)
    if np.array_equal(halves, exact):
        return np.spacing(np.abs(halves)).astype(np.float64)
    largest = np.max(np.abs(exact), initial=0).astype(np.float32)
    return np.full(exact.shape, 16 * float(np.spacing(largest)))


def _is_near(mine: Any, other: Any, distance: Any) -> bool:
    if not (isinstance(mine, np.ndarray) and mine.shape == other.shape):
        return False
    return bool(np.all(np.abs(mine.astype(np.float64) - other.astype(np.float64)) <= distance))


def _is_difference(error: AssertionError) -> bool:
    return _DIFFERENCE in str(error)


def _says(error: BaseException | None) -> tuple[str, int, str]:
    """Where an error was raised, and the first line of its message: others show programs, with numbers of their own."""
    place = None if error is None else error.__traceback__
    if place is None:
        return "", 0, ""
    while place.tb_next is not None:
        place = place.tb_next
    return place.tb_frame.f_code.co_filename, place.tb_lineno, str(error).partition("\n")[0]


def _in_fp32(value: Any) -> Any:
    """A test's argument with fp32 in the place of fp16; itself where it has none."""
    if value is np.float16:
        return np.float32
    if isinstance(value, str):
        return _IN_FP32.get(value, value)
    if type(value) in (tuple, list):
        changed = [_in_fp32(each) for each in value]
        return value if all(new is old for new, old in zip(changed, value, strict=True)) else type(value)(changed)
    return value
