"""MLModel: predict, batches, states, functions, images, classifiers; and what is wrong with the caller's input."""

import asyncio
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.testing_utils import compare_backend
from coremltools.models import MLModel
from PIL import Image

from triune.core.errors import NotFoundError

X = np.array([[1, -2, 3, 0.5]], np.float32)


def expected(x: np.ndarray) -> np.ndarray:
    product = np.maximum(x @ np.linspace(-1, 1, 2048 * 4, dtype=np.float32).reshape(2048, 4).T, 0)
    powers = np.exp(product - product.max())
    return powers / powers.sum()


def test_predict_computes(layers: Any) -> None:
    (answer,) = layers.predict({"x": X}).values()
    assert answer.dtype == np.float32
    np.testing.assert_allclose(answer, expected(X), rtol=2e-2, atol=1e-5)


def test_predict_takes_fp16_lists_and_batches(layers: Any) -> None:
    one = layers.predict({"x": X.astype(np.float16)})["y"]
    np.testing.assert_array_equal(layers.predict({"x": X.tolist()})["y"], one)
    batch = layers.predict([{"x": X}, {"x": 2 * X}])
    assert len(batch) == 2
    np.testing.assert_array_equal(batch[0]["y"], one)
    assert not np.array_equal(batch[1]["y"], one)


def test_a_package_on_disk(package: Path) -> None:
    model = MLModel(str(package))
    np.testing.assert_allclose(model.predict({"x": X})["y"], expected(X), rtol=2e-2, atol=1e-5)
    assert model.load_duration_in_nano_seconds > 10_000
    assert model.last_predict_duration_in_nano_seconds > 1000


def test_no_duration_before_the_first_prediction(package: Path) -> None:
    assert MLModel(str(package)).last_predict_duration_in_nano_seconds is None


def test_optimization_hints_are_taken(package: Path) -> None:
    hints = {"reshapeFrequency": ct.ReshapeFrequency.Infrequent, "allowLowPrecisionAccumulationOnGPU": True}
    model = MLModel(str(package), optimization_hints=hints, compute_units=ct.ComputeUnit.CPU_AND_NE)
    assert model.__proxy__.hints == {"reshapeFrequency": "Infrequent", "allowLowPrecisionAccumulationOnGPU": "True"}
    assert model.predict({"x": X})["y"].shape == (1, 2048)


def test_upstreams_comparison_compares(layers: Any) -> None:
    compare_backend(layers, {"x": X}, {"y": expected(X)})
    with pytest.raises(AssertionError):
        compare_backend(layers, {"x": X}, {"y": expected(X) + 2})


def test_states(counter: Any) -> None:
    first, second = counter.make_state(), counter.make_state()
    for turn in range(1, 4):
        assert counter.predict({"x": np.array([1, 2])}, state=first)["y"].tolist() == [turn, 2 * turn]
    assert counter.predict({"x": np.array([1, 2])}, state=second)["y"].tolist() == [1, 2]
    assert first.read_state("count").tolist() == [3, 6]
    first.write_state("count", np.array([10, 20], np.float32))
    assert counter.predict({"x": np.array([1, 2])}, state=first)["y"].tolist() == [11, 22]


def test_wrong_states_are_runtime_errors(counter: Any) -> None:
    state = counter.make_state()
    with pytest.raises(RuntimeError, match="no state 'other'"):
        state.read_state("other")
    with pytest.raises(RuntimeError, match=r"shape \[3\]"):
        state.write_state("count", np.zeros(3))
    with pytest.raises(RuntimeError, match="has states"):
        counter.predict({"x": np.array([1, 2])})


def test_functions(tmp_path: Path) -> None:
    def saved(name: str, factor: float) -> str:
        @mb.program(input_specs=[mb.TensorSpec(shape=(2,))], opset_version=ct.target.iOS18)
        def program(x):
            return mb.mul(x=x, y=factor, name="y")

        path = str(tmp_path / f"{name}.mlpackage")
        ct.convert(program, convert_to="mlprogram", minimum_deployment_target=ct.target.iOS18).save(path)
        return path

    descriptor = ct.utils.MultiFunctionDescriptor()
    descriptor.add_function(saved("double", 2.0), "main", "double")
    descriptor.add_function(saved("triple", 3.0), "main", "triple")
    descriptor.default_function_name = "double"
    path = str(tmp_path / "both.mlpackage")
    ct.utils.save_multifunction(descriptor, path)
    answers = [MLModel(path, function_name=name).predict({"x": np.ones(2)})["y"][0] for name in (None, "triple")]
    assert answers == [2, 3]
    compiled = ct.models.utils.compile_model(path)
    with pytest.raises(RuntimeError, match="no function 'other'") as caught:
        ct.models.CompiledMLModel(compiled, function_name="other")
    assert isinstance(caught.value.__cause__, NotFoundError)


def test_images_in_and_out() -> None:
    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 3, 4, 6))])
    def program(image):
        return mb.sub(x=255.0, y=image, name="negative")

    model = ct.convert(
        program,
        convert_to="mlprogram",
        inputs=[ct.ImageType(name="image", shape=(1, 3, 4, 6))],
        minimum_deployment_target=ct.target.iOS16,
    )
    specification = model.get_spec()
    output = specification.description.output[0].type.imageType
    output.width, output.height, output.colorSpace = 6, 4, output.RGB
    model = MLModel(specification, weights_dir=model.weights_dir)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    answer = model.predict({"image": Image.fromarray(pixels)})["negative"]
    assert isinstance(answer, Image.Image)
    assert answer.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(answer), 255 - pixels)


def test_a_classifier() -> None:
    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 3))])
    def program(x):
        return mb.softmax(x=x, axis=-1)

    config = ct.ClassifierConfig(["cat", "dog", "cow"])
    model = ct.convert(program, convert_to="mlprogram", classifier_config=config)
    answer = model.predict({"x": np.array([[0, 3, 1]])})
    assert answer["classLabel"] == "dog"
    (probabilities,) = (value for value in answer.values() if isinstance(value, dict))
    assert sorted(probabilities) == ["cat", "cow", "dog"]
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-2)


def test_limits_of_flexible_shapes_hold() -> None:
    @mb.program(input_specs=[mb.TensorSpec(shape=(1, mb_symbol()))])
    def program(x):
        return mb.square(x=x, name="y")

    shape = ct.Shape((1, ct.RangeDim(2, 5)))
    model = ct.convert(program, convert_to="mlprogram", inputs=[ct.TensorType(name="x", shape=shape)])
    assert model.predict({"x": np.full((1, 5), 3)})["y"].tolist() == [[9] * 5]
    with pytest.raises(RuntimeError, match=r"2\.\.5"):
        model.predict({"x": np.ones((1, 6))})


def mb_symbol() -> Any:
    from coremltools.converters.mil.mil import get_new_symbol

    return get_new_symbol()


def test_wrong_inputs_are_runtime_errors(layers: Any) -> None:
    with pytest.raises(
        RuntimeError,
        match=r"Unable to compute the prediction using ML Program: MultiArray shape \(1 x 5\) does not match",
    ):
        layers.predict({"x": np.ones((1, 5))})
    with pytest.raises(RuntimeError, match="'x' is missing"):
        layers.predict({})


def test_neural_networks_are_refused_with_a_remedy() -> None:
    @mb.program(input_specs=[mb.TensorSpec(shape=(2,))])
    def program(x):
        return mb.relu(x=x)

    with pytest.warns(RuntimeWarning, match="only ML Programs are known"):
        model = ct.convert(program, convert_to="neuralnetwork")
    with pytest.raises(RuntimeError, match="convert its source again"):
        model.predict({"x": np.ones(2)})


async def test_async_wrapper(package: Path) -> None:
    from coremltools.models.ml_program.experimental.async_wrapper import MLModelAsyncWrapper

    wrapper = MLModelAsyncWrapper.from_spec_or_path(str(package), weights_dir="")
    await wrapper.load()
    answer = await asyncio.wait_for(wrapper.predict({"x": X}), 60)
    np.testing.assert_allclose(answer["y"], expected(X), rtol=2e-2, atol=1e-5)
    plan = await wrapper.retrieve_compute_plan()
    assert plan.model_structure.program is not None


def _stage(taken: str, given: str, factor: float, **options: Any) -> Any:
    """A model of `given` = `taken` times a matrix of a factor, whose weights lie in a file."""

    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 64))])
    def program(x):
        y = mb.matmul(x=x, y=np.eye(64, dtype=np.float32) * np.float32(factor))
        return mb.slice_by_size(x=y, begin=[0, 0], size=[1, 3], name=given) if options else mb.identity(x=y, name=given)

    model = ct.convert(
        program,
        convert_to="mlprogram",
        compute_precision=ct.precision.FLOAT32,
        minimum_deployment_target=ct.target.iOS16,
        **options,
    )
    specification = model.get_spec()
    ct.utils.rename_feature(specification, "x", taken)
    return ct.models.MLModel(specification, weights_dir=model.weights_dir)


def test_pipelines(tmp_path: Path) -> None:
    x = np.arange(64, dtype=np.float32)[None]
    pair = ct.utils.make_pipeline(_stage("a", "b", 2), _stage("b", "c", 5))
    np.testing.assert_array_equal(pair.predict({"a": x})["c"], 10 * x)
    pair.save(str(tmp_path / "pair.mlpackage"))
    again = ct.models.MLModel(str(tmp_path / "pair.mlpackage"))
    np.testing.assert_array_equal(again.predict({"a": x})["c"], 10 * x)
    with pytest.raises(RuntimeError, match="'a' is missing"):
        pair.predict({})
    # Both take `a`; the first's output is one of the whole.
    shared = ct.utils.make_pipeline(_stage("a", "b", 2), _stage("a", "c", 3))
    np.testing.assert_array_equal(shared.predict({"a": x})["b"], 2 * x)
    np.testing.assert_array_equal(shared.predict({"a": x})["c"], 3 * x)


def test_a_pipeline_may_end_in_a_classifier() -> None:
    labels = ct.ClassifierConfig(["ant", "bee", "cat"])
    model = ct.utils.make_pipeline(_stage("a", "b", 2), _stage("b", "c", 1, classifier_config=labels))
    answers = model.predict({"a": np.eye(1, 64, 1, dtype=np.float32)})
    assert "bee" in answers.values()
    assert {"ant": 0, "bee": 2, "cat": 0} in answers.values()


def test_pipelines_within_pipelines(tmp_path: Path) -> None:
    inner = ct.utils.make_pipeline(_added("b", "c"), _added("c", "d")).get_spec()
    first = _added("a", "b").get_spec()
    whole = ct.proto.Model_pb2.Model(specificationVersion=7)
    whole.description.input.extend(first.description.input)
    whole.description.output.extend(inner.description.output)
    whole.pipeline.models.extend([first, inner])
    model = ct.models.MLModel(whole, weights_dir=str(tmp_path))
    assert model.predict({"a": np.zeros(2, np.float32)})["d"].tolist() == [3, 3]


def _added(taken: str, given: str) -> Any:
    """`given` is `taken` plus 1; there is no file of weights."""

    @mb.program(input_specs=[mb.TensorSpec(shape=(2,))])
    def program(x):
        return mb.add(x=x, y=1.0, name=given)

    model = ct.convert(program, convert_to="mlprogram", minimum_deployment_target=ct.target.iOS16)
    specification = model.get_spec()
    ct.utils.rename_feature(specification, "x", taken)
    return ct.models.MLModel(specification, weights_dir=model.weights_dir)
