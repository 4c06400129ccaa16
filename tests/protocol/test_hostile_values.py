"""Values and shapes that an operator cannot take: the request is told that they are wrong, and what they were."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from support.graphs import model_of
from support.hostile_values import HOSTILE_VALUES, LEAST, HostileValues
from support.process import Served, serve
from support.repositories import affine, write_model

NAMED = [(f"{case.name}_{number}", case) for number, case in enumerate(HOSTILE_VALUES)]
REFUSED = re.compile(r"the model cannot compute these inputs: \w+ '\w+'.*; .*send values (and shapes )?that ")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("repository")
    for name, case in NAMED:
        write_model(folder, name, v1=case.model().SerializeToString())
    # No first dimension is a batch here.
    with serve(folder, "--backend-config=onnxruntime,default-max-batch-size=0") as running:
        yield running


def infer(module: Any, address: str, model: str, arrays: dict[str, Any]) -> Any:
    inputs = []
    for name, array in arrays.items():
        tensor = module.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
        inputs.append(tensor.set_data_from_numpy(array))
    with module.InferenceServerClient(address) as client:
        return client.infer(model, inputs)


@pytest.mark.parametrize(("name", "case"), NAMED, ids=[name for name, _ in NAMED])
def test_they_are_400(served: Served, name: str, case: HostileValues) -> None:
    # The first of all requests is hostile, too.
    for values in (*case.refused, case.refused[0]):
        arrays = case.arrays({**case.taken, **values})
        with pytest.raises(InferenceServerException) as caught:
            infer(tritonclient.http, served.http, name, arrays)
        assert caught.value.status() == "400", caught.value.message()
        assert REFUSED.match(caught.value.message())
    assert infer(tritonclient.http, served.http, name, case.arrays(case.taken)).as_numpy("y") is not None


def test_over_grpc_they_are_invalid_arguments_and_named(served: Served) -> None:
    name, case = NAMED[0]
    with pytest.raises(InferenceServerException) as caught:
        infer(tritonclient.grpc, served.grpc, name, case.arrays({**case.taken, "s": [1, 1, -3]}))
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert caught.value.message() == (
        "the model cannot compute these inputs: Resize 'y': Scale value should be greater than 0 "
        "(given s = [1.0, 1.0, -3.0]); send values and shapes that it takes"
    )


def test_what_nobody_has_the_memory_for_is_the_requests_fault(served: Served) -> None:
    name, case = next(each for each in NAMED if each[1].name == "HannWindow")
    with pytest.raises(InferenceServerException, match=r"HannWindow 'y' asks for \d+ bytes of memory"):
        infer(tritonclient.http, served.http, name, case.arrays({"n": 2**40}))
    with pytest.raises(InferenceServerException, match="a size would be below 0"):
        infer(tritonclient.http, served.http, name, case.arrays({"n": LEAST}))


@pytest.mark.parametrize(("op", "many"), [("Tile", [4096]), ("Gather", [0] * 4096)])
def test_strings_that_a_model_multiplies_are_held_to_a_runs_memory(tmp_path: Path, op: str, many: list[int]) -> None:
    text = f"g (string[n] x, int64[m] s) => (string[k] y) {{ y = {op}(x, s) }}"
    write_model(tmp_path, "strings", v1=model_of(text, opset=18).SerializeToString())
    write_model(tmp_path, "other", v1=affine())
    x = np.array([b"x" * (1 << 20)], np.object_)
    options = ("--backend-config=onnxruntime,default-max-batch-size=0", f"--run-memory-bytes={256 << 20}")
    with serve(tmp_path, *options) as served:
        for module, address, status in (
            (tritonclient.http, served.http, "400"),
            (tritonclient.grpc, served.grpc, "StatusCode.INVALID_ARGUMENT"),
        ):
            with pytest.raises(InferenceServerException) as caught:
                infer(module, address, "strings", {"x": x, "s": np.array(many, np.int64)})
            assert caught.value.status() == status
            assert re.match(
                rf"the model cannot compute these inputs: {op} 'y'.* takes more than the {256 << 20} bytes of memory "
                "that a run may take in all, by --run-memory-bytes; send values and shapes that need less",
                caught.value.message(),
            )
            few = infer(module, address, "strings", {"x": x, "s": np.array(many, np.int64)[:1] * 0 + (op == "Tile")})
            assert few.as_numpy("y").tolist() == x.tolist()
            assert module.InferenceServerClient(address).is_model_ready("other")
