"""Which case of Triton's QA each test takes over, and what the ledger says of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.ledger import Ledger
from support.process import Served, serve
from support.repositories import add_sub, write_model
from support.triton_qa import FP16, INT64, STRING, UNBATCHED_STRINGS, zero

LEDGER = Ledger(Path(__file__).parent.with_suffix(".ledger"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "triton(*cases): the cases of Triton's QA that the test takes over")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for marker in item.iter_markers("triton"):
            for case in marker.args:
                reason = LEDGER.reasons.get(case)
                if reason is not None:
                    # What Triton expects, and Triune does otherwise: a test that passes after all fails.
                    item.add_marker(pytest.mark.xfail(strict=True, reason=reason))


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of the models that L0_http, L0_grpc and L0_string_io ask."""
    folder = tmp_path_factory.mktemp("examples")
    queue = (
        "max_batch_size: 8 dynamic_batching { max_queue_delay_microseconds: 1000000 preferred_batch_size: [ 8 ] "
        "default_queue_policy { max_queue_size: 1 } }"
    )
    write_model(folder, "onnx_zero_1_float32", "max_batch_size: 8", v1=zero())
    write_model(folder, "onnx_zero_1_object", "max_batch_size: 8", v1=zero(STRING))
    write_model(folder, "onnx_zero_1_object_1_element", "max_batch_size: 8", v1=zero(STRING, dims=[1]))
    write_model(folder, "onnx_zero_1_float16", "max_batch_size: 8", v1=zero(FP16, dims=["m", "n"]))
    write_model(folder, "onnx_zero_3_float32", "max_batch_size: 8", v1=zero(num_tensors=3))
    write_model(folder, "onnx_zero_1_float32_queue", queue, v1=zero())
    write_model(folder, "simple", "max_batch_size: 8", v1=add_sub())
    write_model(folder, "simple_identity", "max_batch_size: 8", v1=zero(STRING))
    write_model(folder, "simple_identity_int64", "max_batch_size: 8", v1=zero(INT64))
    write_model(folder, "string_identity", UNBATCHED_STRINGS, v1=zero(STRING, batch=False))
    with serve(folder, "--model-control-mode=explicit", "--load-model=*") as served:
        yield served


@pytest.fixture(params=["http", "grpc"])
def protocol(request: pytest.FixtureRequest) -> str:
    return request.param
