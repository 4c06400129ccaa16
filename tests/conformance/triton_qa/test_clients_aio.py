"""L0_http and L0_grpc: tritonclient's clients for asyncio reach every call."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import tritonclient.grpc.aio
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

from support.process import Served, serve
from support.repositories import add_sub, write_model
from support.triton_qa import STRING, zero

FILES = {"http": "L0_http/python_http_aio_test.py::", "grpc": "L0_grpc/python_grpc_aio_test.py::"}
MODULES = {"http": tritonclient.http.aio, "grpc": tritonclient.grpc.aio}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Model control is off, Triton's default."""
    folder = tmp_path_factory.mktemp("fixed")
    write_model(folder, "simple", "max_batch_size: 8", v1=add_sub())
    write_model(folder, "simple_identity", "max_batch_size: 8", v1=zero(STRING))
    with serve(folder) as running:
        yield running


def each_client(*names: str) -> pytest.MarkDecorator:
    """The test runs for both clients, as the cases of these names."""
    values = [
        pytest.param(protocol, marks=pytest.mark.triton(*(file + name for name in names)))
        for protocol, file in FILES.items()
    ]
    return pytest.mark.parametrize("aio", values, indirect=True)


@pytest.fixture
async def aio(request: pytest.FixtureRequest, served: Served) -> AsyncIterator[Any]:
    client = MODULES[request.param].InferenceServerClient(getattr(served, request.param))
    yield client
    await client.close()


def field(answer: Any, name: str) -> Any:
    return answer[name] if isinstance(answer, dict) else getattr(answer, name)


@each_client("test_is_server_live", "test_is_server_ready", "test_is_model_ready")
async def test_health(aio: Any) -> None:
    assert await aio.is_server_live()
    assert await aio.is_server_ready()
    assert await aio.is_model_ready("simple")


@each_client("test_get_server_metadata")
async def test_the_servers_name(aio: Any) -> None:
    assert field(await aio.get_server_metadata(), "name") == "triton"


@each_client("test_get_model_metadata")
async def test_model_metadata(aio: Any) -> None:
    assert field(await aio.get_model_metadata("simple"), "name") == "simple"


@each_client("test_get_model_config")
async def test_model_config(aio: Any) -> None:
    config = await aio.get_model_config("simple")
    assert field(getattr(config, "config", config), "name") == "simple"


@each_client("test_get_model_repository_index")
async def test_the_index(aio: Any) -> None:
    index = await aio.get_model_repository_index()
    assert len(getattr(index, "models", index)) == 2


@each_client("test_load_model", "test_unload_model")
async def test_model_control_is_off(aio: Any) -> None:
    # Triton's test of unloading calls `load_model`, too.
    for call in (aio.load_model, aio.unload_model):
        with pytest.raises(
            InferenceServerException, match="explicit model load / unload is not allowed if polling is enabled"
        ):
            await call("simple")


@each_client("test_get_inference_statistics")
async def test_statistics(aio: Any) -> None:
    statistics = await aio.get_inference_statistics()
    assert len(field(statistics, "model_stats")) == 2


@each_client("test_update_trace_settings", "test_get_trace_settings")
async def test_trace_settings(aio: Any) -> None:
    await aio.update_trace_settings()
    await aio.get_trace_settings()


@each_client("test_register_system_shared_memory", "test_register_cuda_shared_memory")
async def test_shared_memory_without_a_name(aio: Any) -> None:
    with pytest.raises(InferenceServerException):
        await aio.register_system_shared_memory("", "", 0)
    with pytest.raises(InferenceServerException):
        await aio.register_cuda_shared_memory("", b"", 0, 0)


@each_client(
    "test_get_system_shared_memory_status",
    "test_unregister_system_shared_memory",
    "test_get_cuda_shared_memory_status",
    "test_unregister_cuda_shared_memory",
)
async def test_shared_memory(aio: Any) -> None:
    await aio.get_system_shared_memory_status()
    await aio.unregister_system_shared_memory()
    await aio.get_cuda_shared_memory_status()
    await aio.unregister_cuda_shared_memory()
