"""The ensembles that Triton's documentation and its example repositories describe, as far as they need no GPU.

The pages are `docs/user_guide/ensemble_models.md` and `docs/examples/ensemble_model_repository` of Triton's server.
Their names, shapes, datatypes and connections are kept. Small models in ONNX stand for the networks and for the
libraries that decode pictures: a "picture" is a text with its brightness.

Others that Triton describes do not fit: the tutorials' Model_Ensembles and python_backend's `preprocessing` have steps
in Python, the ensembles of DALI and RAPIDS steps of those libraries, the conditional pipelines of the tutorials (BLS)
are one model in Python, and `preprocess_resnet50_ensemble` is `preprocess_inception_ensemble` with other sizes.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from onnx import NodeProto, helper, numpy_helper
from tritonclient.utils import InferenceServerException

from support.ensembles import scheduling, tensors, write_ensemble
from support.process import Served, serve
from support.repositories import write_model
from support.triton_qa import FP32, MODULES, STRING, model_bytes
from support.triton_tensors import tensors as infer_inputs

SIZE = 224
SUM = np.arange(1000, dtype=np.float32) / 1000


def network(
    nodes: Sequence[NodeProto],
    given: tuple[str, int, Sequence[Any]],
    wanted: tuple[str, Sequence[Any]],
    constants: Mapping[str, np.ndarray],
) -> bytes:
    """A model of one input and one output FP32, both with a batch dimension."""
    name, datatype, dims = given
    inputs = [helper.make_tensor_value_info(name, datatype, ["batch", *dims])]
    outputs = [helper.make_tensor_value_info(wanted[0], FP32, ["batch", *wanted[1]])]
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    return model_bytes(helper.make_graph(nodes, "network", inputs, outputs, tensors))


def preprocessing(given: str, wanted: str, dims: Sequence[int]) -> bytes:
    """A text with a brightness becomes a picture of that brightness."""
    nodes = [
        helper.make_node("Cast", [given], ["brightness"], to=FP32),
        helper.make_node("Reshape", ["brightness", "shape"], ["one"]),
        helper.make_node("Mul", ["one", "white"], [wanted]),
    ]
    constants = {"shape": np.array([-1, 1, 1, 1]), "white": np.ones((1, *dims), np.float32)}
    return network(nodes, (given, STRING, [1]), (wanted, dims), constants)


def classification(given: str, wanted: str, dims: Sequence[int], scores: np.ndarray) -> bytes:
    """The score of each class is the mean of the picture times a number of its own."""
    nodes = [
        helper.make_node("ReduceMean", [given], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "last"], ["column"]),
        helper.make_node("Mul", ["column", "scores"], [wanted]),
    ]
    return network(nodes, (given, FP32, dims), (wanted, [len(scores)]), {"last": np.array([1]), "scores": scores})


def segmentation(given: str, wanted: str, dims: Sequence[int]) -> bytes:
    """Each element of the picture, plus 1."""
    nodes = [helper.make_node("Add", [given, "one"], [wanted])]
    return network(nodes, (given, FP32, dims), (wanted, dims), {"one": np.ones(1, np.float32)})


def write_documented(folder: Path, preprocess_config: str = "max_batch_size: 8") -> None:
    """`ensemble_model` of the guide: a picture is preprocessed once, then classified and segmented."""
    dims = [3, SIZE, SIZE]
    preprocess = preprocessing("RAW_IMAGE", "PREPROCESSED_OUTPUT", dims)
    write_model(folder, "image_preprocess_model", preprocess_config, v1=preprocess)
    write_model(
        folder,
        "classification_model",
        "max_batch_size: 8",
        v1=classification("FORMATTED_IMAGE", "CLASSIFICATION_OUTPUT", dims, SUM),
    )
    segment = segmentation("FORMATTED_IMAGE", "SEGMENTATION_OUTPUT", dims)
    write_model(folder, "segmentation_model", "max_batch_size: 8", v1=segment)
    steps = [
        ("image_preprocess_model", {"RAW_IMAGE": "IMAGE"}, {"PREPROCESSED_OUTPUT": "preprocessed_image"}),
        (
            "classification_model",
            {"FORMATTED_IMAGE": "preprocessed_image"},
            {"CLASSIFICATION_OUTPUT": "CLASSIFICATION"},
        ),
        ("segmentation_model", {"FORMATTED_IMAGE": "preprocessed_image"}, {"SEGMENTATION_OUTPUT": "SEGMENTATION"}),
    ]
    config = 'name: "ensemble_model" platform: "ensemble" max_batch_size: 1 '
    config += tensors("input", ("IMAGE",), "TYPE_STRING", "[ 1 ]")
    config += (
        'output [ { name: "CLASSIFICATION" data_type: TYPE_FP32 dims: [ 1000 ] }, '
        f'{{ name: "SEGMENTATION" data_type: TYPE_FP32 dims: [ 3, {SIZE}, {SIZE} ] }} ]\n'
    )
    write_ensemble(folder, "ensemble_model", config + scheduling(steps))


def write_inception(folder: Path) -> None:
    """`preprocess_inception_ensemble` of the example repository, and the labels of its last model."""
    dims = [299, 299, 3]
    preprocess = preprocessing("INPUT", "OUTPUT", dims)
    write_model(folder, "image_preprocess_nhwc_299x299x3_inception", "max_batch_size: 128", v1=preprocess)
    softmax = "InceptionV3/Predictions/Softmax"
    config = (
        "max_batch_size: 128 "
        'input [ { name: "input" data_type: TYPE_FP32 format: FORMAT_NHWC dims: [ 299, 299, 3 ] } ] '
        f'output [ {{ name: "{softmax}" data_type: TYPE_FP32 dims: [ 1001 ] label_filename: "labels.txt" }} ]'
    )
    scores = np.linspace(0, 1, 1001, dtype=np.float32)
    model = write_model(folder, "inception_graphdef", config, v1=classification("input", softmax, dims, scores))
    (model / "labels.txt").write_text("".join(f"CLASS {index}\n" for index in range(1001)))
    steps = [
        ("image_preprocess_nhwc_299x299x3_inception", {"INPUT": "INPUT"}, {"OUTPUT": "preprocessed_image"}),
        ("inception_graphdef", {"input": "preprocessed_image"}, {softmax: "OUTPUT"}),
    ]
    config = 'name: "preprocess_inception_ensemble" platform: "ensemble" max_batch_size: 128 '
    config += tensors("input", ("INPUT",), "TYPE_STRING", "[ 1 ]") + tensors(
        "output", ("OUTPUT",), "TYPE_FP32", "[ 1001 ]"
    )
    write_ensemble(folder, "preprocess_inception_ensemble", config + scheduling(steps))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("documented")
    write_documented(folder)
    write_inception(folder)
    with serve(folder) as running:
        yield running


def pictures(*brightness: str) -> np.ndarray:
    return np.array([[each.encode()] for each in brightness], np.object_)


def counts(client: Any) -> dict[str, int]:
    found = client.get_inference_statistics()["model_stats"]
    return {each["name"]: int(each["inference_stats"]["success"]["count"]) for each in found}


def test_a_picture_is_preprocessed_once_for_both_models_that_read_it(served: Served, protocol: str) -> None:
    module = MODULES[protocol]
    with (
        module.InferenceServerClient(getattr(served, protocol)) as client,
        tritonclient.http.InferenceServerClient(served.http) as http,
    ):

        def infer(model: str, *outputs: str, **given: np.ndarray) -> Any:
            wanted = [module.InferRequestedOutput(name) for name in outputs] or None
            return client.infer(model, infer_inputs(module, given), outputs=wanted)

        before = counts(http)
        answer = infer("ensemble_model", IMAGE=pictures("0.5"))
        np.testing.assert_allclose(answer.as_numpy("CLASSIFICATION"), [SUM / 2], rtol=1e-5)
        np.testing.assert_array_equal(answer.as_numpy("SEGMENTATION"), np.full((1, 3, SIZE, SIZE), 1.5, np.float32))
        grown = {name: count - before[name] for name, count in counts(http).items() if "inception" not in name}
        steps = ("classification_model", "image_preprocess_model", "segmentation_model")
        assert grown == dict.fromkeys(["ensemble_model", *steps], 1)
        # Clients see four models, which answer independently, and of which an answer may leave outputs out.
        image = infer("image_preprocess_model", RAW_IMAGE=pictures("0.5", "2")).as_numpy("PREPROCESSED_OUTPUT")
        each = infer("classification_model", FORMATTED_IMAGE=image).as_numpy("CLASSIFICATION_OUTPUT")
        np.testing.assert_allclose(each, [SUM / 2, SUM * 2], rtol=1e-5)
        before = counts(http)
        assert infer("ensemble_model", "CLASSIFICATION", IMAGE=pictures("1")).as_numpy("SEGMENTATION") is None
        grown = {name: count - before[name] for name, count in counts(http).items()}
        assert (grown["classification_model"], grown["segmentation_model"]) == (1, 0)
        # What only the steps know, and more pictures than the ensemble takes, are refused.
        with pytest.raises(InferenceServerException, match="preprocessed_image"):
            infer("ensemble_model", "preprocessed_image", IMAGE=pictures("1"))
        with pytest.raises(InferenceServerException, match="batch-size must be <= 1 for 'ensemble_model'"):
            infer("ensemble_model", IMAGE=pictures("1", "2"))


def test_pictures_are_named_by_the_labels_of_the_last_model(served: Served, protocol: str) -> None:
    module = MODULES[protocol]
    with module.InferenceServerClient(getattr(served, protocol)) as client:
        wanted = [module.InferRequestedOutput("OUTPUT", class_count=3)]
        given = infer_inputs(module, {"INPUT": pictures("1", "0.25", "-1")})
        found = client.infer("preprocess_inception_ensemble", given, outputs=wanted).as_numpy("OUTPUT")
    named = [[tuple(each.decode().split(":")[1:]) for each in row] for row in found]
    assert named[0] == named[1] == [(str(index), f"CLASS {index}") for index in (1000, 999, 998)]
    assert named[2][0] == ("0", "CLASS 0")


def test_requests_to_the_ensemble_share_the_batches_of_its_models(tmp_path: Path) -> None:
    # A batch begins with four requests, or after a minute.
    batching = "dynamic_batching { preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 60000000 }"
    write_documented(tmp_path, f"max_batch_size: 8 {batching}")
    with serve(tmp_path) as served, tritonclient.http.InferenceServerClient(served.http, concurrency=4) as client:
        asked = [
            client.async_infer("ensemble_model", infer_inputs(tritonclient.http, {"IMAGE": pictures(str(index))}))
            for index in range(4)
        ]
        for index, each in enumerate(asked):
            answer = each.get_result().as_numpy("CLASSIFICATION")
            np.testing.assert_allclose(answer, [index * SUM], rtol=1e-5)
        (found,) = client.get_inference_statistics("image_preprocess_model")["model_stats"]
        assert (int(found["inference_count"]), int(found["execution_count"])) == (4, 1)


def test_the_limit_of_requests_in_flight_is_written_as_in_the_guide(tmp_path: Path) -> None:
    dims = [3, 8, 8]
    preprocess = preprocessing("RAW_IMAGE", "PREPROCESSED_IMAGE", dims)
    write_model(tmp_path, "dali_preprocess", "max_batch_size: 8", v1=preprocess)
    write_model(tmp_path, "onnx_inference", "max_batch_size: 8", v1=classification("INPUT", "OUTPUT", dims, SUM))
    config = 'platform: "ensemble" max_batch_size: 1 ' + tensors("input", ("IMAGE",), "TYPE_STRING", "[ 1 ]")
    config += tensors("output", ("RESULT",), "TYPE_FP32", "[ 1000 ]")
    steps = [
        ("dali_preprocess", ("RAW_IMAGE", "IMAGE"), ("PREPROCESSED_IMAGE", "preprocessed")),
        ("onnx_inference", ("INPUT", "preprocessed"), ("OUTPUT", "RESULT")),
    ]
    written = ",\n".join(
        f'{{ model_name: "{model}" model_version: -1\n'
        f'  input_map {{ key: "{given[0]}", value: "{given[1]}" }}\n'
        f'  output_map {{ key: "{wanted[0]}", value: "{wanted[1]}" }} }}'
        for model, given, wanted in steps
    )
    config += f"ensemble_scheduling {{\n  max_inflight_requests: 16\n  step [ {written} ]\n}}\n"
    write_ensemble(tmp_path, "limited", config)
    with serve(tmp_path) as served, tritonclient.http.InferenceServerClient(served.http, concurrency=40) as client:
        assert client.get_model_config("limited")["ensemble_scheduling"]["max_inflight_requests"] == 16
        asked = [
            client.async_infer("limited", infer_inputs(tritonclient.http, {"IMAGE": pictures(str(index))}))
            for index in range(40)
        ]
        for index, each in enumerate(asked):
            np.testing.assert_allclose(each.get_result().as_numpy("RESULT"), [index * SUM], rtol=1e-5)
