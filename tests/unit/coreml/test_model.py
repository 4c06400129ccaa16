import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.mil_models import ct, program, save, save_accumulator, save_affine, save_image_model, tensor
from support.mil_programs import mb
from triune import coreml
from triune.core.errors import InvalidArgumentError, NotFoundError, UnsupportedError

X = np.ones((2, 3), np.float32)


@pytest.fixture(scope="module")
def affine(tmp_path_factory: pytest.TempPathFactory) -> coreml.Model:
    return coreml.load(save_affine(tmp_path_factory.mktemp("affine")), executor="reference")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> coreml.Model:
    @program(tensor(2, dtype="int32"))
    def made(n: Any) -> Any:
        return mb.add(x=n, y=1, name="m")

    return coreml.load(save(tmp_path_factory.mktemp("whole"), made), executor="reference")


def test_names_must_be_the_models(affine: coreml.Model) -> None:
    with pytest.raises(InvalidArgumentError, match=r"no input 'z'; it has \['x'\]"):
        affine.predict({"x": X, "z": X})
    with pytest.raises(InvalidArgumentError, match=r"input 'x' is missing: give fp32 of \[2, 3\]"):
        affine.predict({})
    with pytest.raises(InvalidArgumentError, match="input 'x' is missing"):
        affine.predict({"x": None})


def test_shapes_must_be_the_models(affine: coreml.Model) -> None:
    with pytest.raises(InvalidArgumentError, match=r"'x' has shape \[3, 2\]; it must have \[2, 3\]"):
        affine.predict({"x": X.T})
    with pytest.raises(InvalidArgumentError, match="'x' is not an array"):
        affine.predict({"x": [[1, 2, 3], [4, 5]]})


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64", "int32", "uint8", "bool"])
def test_numbers_of_any_type_that_fit(affine: coreml.Model, dtype: str) -> None:
    np.testing.assert_array_equal(affine.predict({"x": X.astype(dtype)})["y"], 3 * X)


@pytest.mark.parametrize("value", ["text", 1 + 2j, object()])
def test_what_is_no_number_is_refused(affine: coreml.Model, value: object) -> None:
    with pytest.raises(InvalidArgumentError, match="'x' is of .*; it must be of fp32"):
        affine.predict({"x": np.full((2, 3), value)})


def test_numbers_that_do_not_fit_are_refused(affine: coreml.Model, whole: coreml.Model) -> None:
    with pytest.raises(InvalidArgumentError, match="fp32 cannot hold: up to 1e"):
        affine.predict({"x": np.full((2, 3), 1e300)})
    np.testing.assert_array_equal(whole.predict({"n": np.array([2**31 - 2, -(2**31)], np.int64)})["m"][0], 2**31 - 1)
    for values in ([2**31, 0], [-(2**31) - 1, 0], [-2.2e9, 0], [np.nan, 0], [np.inf, 0]):
        with pytest.raises(InvalidArgumentError, match="'n' has values that int32 cannot hold"):
            whole.predict({"n": np.array(values)})
    np.testing.assert_array_equal(whole.predict({"n": np.array([2.0, 3.0])})["m"], [3, 4])
    np.testing.assert_array_equal(whole.predict({"n": np.array([0.75, -1.75])})["m"], [1, 0])
    # Infinity is a number of fp32.
    assert np.isinf(affine.predict({"x": np.full((2, 3), np.inf)})["y"]).all()


@pytest.mark.parametrize(
    ("dimension", "shape", "message"),
    [
        (3, (3, 4), "MultiArray shape (3 x 4) does not match the shape (3 x 3) specified in the model description"),
        (ct.RangeDim(3, 5), (3, 99), "Size (99) of dimension (1) is not in allowed range (3..5)"),
        (None, (3, 4), "MultiArray Shape (3 x 4) was not in enumerated set of allowed shapes"),
    ],
)
def test_shapes_are_refused_in_core_mls_words(
    dimension: Any, shape: tuple[int, ...], message: str, tmp_path: Path
) -> None:
    shapes = ct.EnumeratedShapes([(3, 3), (3, 5)]) if dimension is None else (3, dimension)

    @program(tensor(3, 3 if dimension == 3 else ct.RangeDim().symbol))
    def made(x: Any) -> Any:
        return mb.relu(x=x, name="y")

    path = save(tmp_path, made, inputs=[ct.TensorType("x", shapes)])
    with pytest.raises(InvalidArgumentError, match=re.escape(message) + ": 'x' has shape"):
        coreml.load(path, executor="reference").predict({"x": np.ones(shape, np.float32)})


def test_one_value_as_two_outputs(tmp_path: Path) -> None:
    @program(tensor(2))
    def made(x: Any) -> Any:
        y = mb.relu(x=x, name="y")
        return y, y, x

    path = save(tmp_path, made)
    for executor in ("onnxruntime", "reference"):
        answers = coreml.load(path, executor=executor).predict({"x": np.array([-1, 2], np.float32)})
        assert {name: array.tolist() for name, array in answers.items()} == {"y": [0, 2], "x": [-1, 2]}


def test_what_is_stacked_has_one_shape_by_default(tmp_path: Path) -> None:
    @program(tensor(2, 4), tensor(2, ct.RangeDim().symbol))
    def made(a: Any, b: Any) -> Any:
        return mb.stack(values=[a, b], axis=0, name="y")

    for default in (4, 2):
        path = save(
            tmp_path,
            made,
            inputs=[ct.TensorType("a", (2, 4)), ct.TensorType("b", (2, ct.RangeDim(1, 10, default=default)))],
        )
        if default == 4:
            answer = coreml.load(path, executor="reference").predict({"a": np.ones((2, 4)), "b": np.zeros((2, 4))})
            assert answer["y"].shape == (2, 2, 4)
        else:
            with pytest.raises(InvalidArgumentError, match=r"\(stack\): .* the shapes \[2, 2\] and \[2, 4\]"):
                coreml.load(path, executor="reference")


def test_optional_inputs_have_defaults(tmp_path: Path) -> None:
    @program(tensor(2), tensor(2))
    def made(x: Any, y: Any) -> Any:
        return mb.sub(x=x, y=y, name="z")

    optional = ct.TensorType(name="y", shape=(2,), default_value=np.full(2, 5.0, np.float32))
    path = save(tmp_path, made, inputs=[ct.TensorType(name="x", shape=(2,)), optional])
    model = coreml.load(path, executor="reference")
    np.testing.assert_array_equal(model.predict({"x": [7, 8]})["z"], [2, 3])
    np.testing.assert_array_equal(model.predict({"x": [7, 8], "y": [1, 2]})["z"], [6, 6])


def test_outputs_of_rank_0_have_one_dimension(tmp_path: Path) -> None:
    @program(tensor(2))
    def made(x: Any) -> Any:
        return mb.reduce_sum(x=x, keep_dims=False, name="y")

    answer = coreml.load(save(tmp_path, made), executor="reference").predict({"x": [1, 2]})["y"]
    np.testing.assert_array_equal(answer, [3])


def test_images_must_have_the_models_size_and_type(tmp_path: Path) -> None:
    model = coreml.load(save_image_model(tmp_path), executor="reference")
    for image, message in (
        (
            np.zeros((5, 4, 3), np.uint8),
            "Image size 4 x 5 not in allowed set of image sizes: image 'x' must be 5x4",
        ),
        (np.zeros((4, 5), np.uint8), r"shape \[4, 5\]; it must have \(height, width, 3\)"),
        (np.zeros((4, 5, 3)), "image 'x' is of float64; it must be of uint8, or a Pillow image"),
    ):
        with pytest.raises(InvalidArgumentError, match=message):
            model.predict({"x": image})


def test_states_are_known_by_name_and_shape(tmp_path: Path, affine: coreml.Model) -> None:
    model = coreml.load(save_accumulator(tmp_path), executor="reference")
    state = model.make_state()
    assert state.names == ("total",)
    with pytest.raises(NotFoundError, match=r"no state 'sum'; there are \['total'\]"):
        state.read("sum")
    with pytest.raises(NotFoundError, match="no state 'sum'"):
        state.write("sum", X)
    with pytest.raises(InvalidArgumentError, match=r"'state total' has shape \[2, 3\]; it must have \[1, 2\]"):
        state.write("total", X)
    assert affine.make_state().names == ()
    with pytest.raises(InvalidArgumentError, match="the state is of another model"):
        affine.predict({"x": X}, state)


def test_a_model_has_its_signature_and_precision(tmp_path: Path, affine: coreml.Model) -> None:
    assert list(map(str, affine.signature.inputs)) == ["x: FP32[2,3]"]
    assert list(map(str, affine.signature.outputs)) == ["y: FP32[2,3]"]
    assert "in reference (fp32)" in repr(affine)
    # A state is neither an input nor an output.
    accumulator = coreml.load(save_accumulator(tmp_path), executor="reference")
    assert [spec.name for spec in accumulator.signature.inputs] == ["x"]
    assert [spec.name for spec in accumulator.signature.outputs] == ["y"]
    assert "in reference (fp16)" in repr(accumulator)


def test_unknown_executors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="no executor 'gpu'; there are coreml, onnxruntime, reference"):
        coreml.load(save_affine(tmp_path), executor="gpu")  # type: ignore[arg-type]


def test_a_specification_in_memory(tmp_path: Path) -> None:
    model = ct.models.MLModel(str(save_affine(tmp_path)), skip_model_load=True)
    loaded = coreml.Model.from_specification(model.get_spec(), model.weights_dir, executor="reference")
    np.testing.assert_array_equal(loaded.predict({"x": X})["y"], 3 * X)


def test_importing_the_room_imports_no_vendor_library() -> None:
    code = "import sys, triune.coreml; print([m for m in ('coremltools', 'onnx', 'onnxruntime') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
