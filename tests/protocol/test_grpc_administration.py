"""Everything of the gRPC service but inference: health, metadata, config, statistics, the repository."""

import asyncio
import dataclasses
import json
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc.aio as aio_module
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from support.hand_server import HandServer
from triune.core.units import Unit
from triune.core.verdict import Verdict
from triune.frontends.kserve.grpc.health import HealthService
from triune.frontends.kserve.grpc.server import GrpcServer
from triune.protos import grpc_service_pb2
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.fixture
def server() -> HandServer:
    return HandServer()


@pytest.fixture
async def front_end(server: HandServer) -> AsyncIterator[GrpcServer]:
    front_end = GrpcServer(server, port=0)  # type: ignore[arg-type]
    yield front_end
    await front_end.stop(0)


@pytest.fixture
async def channel(front_end: GrpcServer) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{await front_end.start()}") as channel:
        yield channel


@pytest.fixture
async def client(front_end: GrpcServer) -> AsyncIterator[aio_module.InferenceServerClient]:
    async with aio_module.InferenceServerClient(f"127.0.0.1:{await front_end.start()}") as client:
        yield client


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def test_every_method_of_the_service_is_there(channel: grpc.aio.Channel) -> None:
    service = grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    for method in service.methods:
        path = f"/{service.full_name}/{method.name}"
        try:
            if method.client_streaming:
                call = channel.stream_stream(path)()
                await call.done_writing()
                assert await call.read() is grpc.aio.EOF
            else:
                await channel.unary_unary(path)(b"")
        except grpc.aio.AioRpcError as error:
            assert "Method not found" not in (error.details() or ""), method.name  # noqa: PT017


async def test_bad_bytes_get_a_typed_error_everywhere(channel: grpc.aio.Channel) -> None:
    service = grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    for method in service.methods:
        if not method.client_streaming:
            code, details = await refused(channel.unary_unary(f"/{service.full_name}/{method.name}")(b"\xff\xff"))
            assert code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED), method.name
            assert details
    code, _ = await refused(channel.unary_unary("/grpc.health.v1.Health/Check")(b"\xff\xff"))
    assert code is grpc.StatusCode.INVALID_ARGUMENT


async def test_server_health_and_metadata(client: aio_module.InferenceServerClient, server: HandServer) -> None:
    assert await client.is_server_live()
    assert await client.is_server_ready()
    server.is_up = False
    assert not await client.is_server_ready()
    metadata = await client.get_server_metadata()
    assert (metadata.name, metadata.version) == ("triune", "9.8.7")
    assert list(metadata.extensions) == ["statistics", "model_repository"]


async def test_model_readiness(client: aio_module.InferenceServerClient) -> None:
    assert await client.is_model_ready("identity")
    assert await client.is_model_ready("identity", "2")
    assert not await client.is_model_ready("identity", "1")
    assert not await client.is_model_ready("nothing")
    assert not await client.is_model_ready("identity", "9" * 5000)
    with pytest.raises(InferenceServerException, match="is not a version"):
        await client.is_model_ready("identity", "x")


@pytest.mark.parametrize("version", ["9", str(2**63 - 1), str(2**63), "9" * 5000])
async def test_a_version_that_is_not_there_is_not_found(client: aio_module.InferenceServerClient, version: str) -> None:
    tensor = aio_module.InferInput("x", [1], "FP32").set_data_from_numpy(np.ones(1, np.float32))
    for call in (
        client.get_model_metadata("identity", version),
        client.get_model_config("identity", version),
        client.get_inference_statistics("identity", version),
        client.infer("identity", [tensor], model_version=version),
    ):
        with pytest.raises(InferenceServerException) as caught:
            await call
        assert caught.value.status() == "StatusCode.NOT_FOUND"


async def test_model_metadata_and_config(client: aio_module.InferenceServerClient) -> None:
    metadata = await client.get_model_metadata("identity", "2")
    assert metadata.name == "identity"
    assert list(metadata.versions) == ["2"]
    assert [(each.name, each.datatype, list(each.shape)) for each in metadata.inputs] == [("INPUT0", "FP32", [-1, 16])]
    assert [each.name for each in metadata.outputs] == ["OUTPUT0"]
    decoupled = await client.get_model_metadata("repeat")
    assert list(decoupled.inputs[0].shape) == [-1]
    assert list(decoupled.outputs[0].shape) == [1]
    assert (await client.get_model_config("identity")).config.max_batch_size == 8
    for question in (client.get_model_metadata, client.get_model_config, client.get_inference_statistics):
        with pytest.raises(InferenceServerException, match="unknown model 'nothing'") as caught:
            await question("nothing")
        assert caught.value.status() == "StatusCode.NOT_FOUND"


async def test_statistics(client: aio_module.InferenceServerClient, server: HandServer) -> None:
    counted = server.models["identity"].statistics
    counted.success.add(5_000_000, 3)
    counted.fail.add(70)
    counted.queue.add(80, 3)
    counted.num_inferences, counted.num_executions, counted.last_inference_ms = 12, 2, 1_700_000_000_123
    counted.record_execution(Unit.CPU, 8, 1, 10, 20, 30)
    counted.record_execution(Unit.CPU, 4, 1, 1, 2, 3)
    everything = await client.get_inference_statistics()
    assert {each.name for each in everything.model_stats} == set(server.models)
    (told,) = (await client.get_inference_statistics("identity", "2")).model_stats
    assert (told.name, told.version, told.last_inference) == ("identity", "2", 1_700_000_000_123)
    assert (told.inference_count, told.execution_count) == (12, counted.num_executions)
    assert (told.inference_stats.success.count, told.inference_stats.success.ns) == (3, 5_000_000)
    assert (told.inference_stats.fail.count, told.inference_stats.fail.ns) == (1, 70)
    assert (told.inference_stats.queue.count, told.inference_stats.queue.ns) == (3, 80)
    assert [each.batch_size for each in told.batch_stats] == [4, 8]
    assert (told.batch_stats[1].compute_infer.count, told.batch_stats[1].compute_infer.ns) == (1, 20)


async def test_what_the_message_has_no_place_for_is_in_the_metadata(
    channel: grpc.aio.Channel, server: HandServer
) -> None:
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    verdict = Verdict(precision="bf16", tolerance=0.25, largest=0.5, relative=0.01)
    server.models["identity"].statistics.verdicts[Unit.AMX] = verdict

    async def told(name: str) -> Any:
        call = stub.ModelStatistics(service_pb2.ModelStatisticsRequest(name=name))
        await call
        return json.loads(dict(await call.trailing_metadata())["triune-statistics"])

    (model,) = await told("identity")
    assert (model["name"], model["version"], model["triune"]["energy"]) == ("identity", "2", [])
    (gate,) = model["triune"]["gate"]
    assert (gate["unit"], gate["is_served"], gate["relative_error"]) == ("amx", True, 0.01)
    server.models["identity"].statistics.lost[Unit.GPU] = "the GPU is lost \u2603" * 300
    assert (await told("identity"))["left_out"].endswith("ask for one model and version")


async def test_repository_index(channel: grpc.aio.Channel) -> None:
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    index = (await stub.RepositoryIndex(service_pb2.RepositoryIndexRequest())).models
    assert ("identity", "2", "READY", "") in [(each.name, each.version, each.state, each.reason) for each in index]
    assert (
        index[-2].name,
        index[-2].version,
        index[-2].state,
        index[-2].reason,
    ) == ("broken", "1", "UNAVAILABLE", "no such file")
    assert (index[-1].name, index[-1].version, index[-1].state) == ("idle", "", "")
    ready = (await stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(ready=True))).models
    assert {each.state for each in ready} == {"READY"}
    for call in (
        stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(repository_name="r")),
        stub.RepositoryModelLoad(service_pb2.RepositoryModelLoadRequest(repository_name="r", model_name="m")),
        stub.RepositoryModelUnload(service_pb2.RepositoryModelUnloadRequest(repository_name="r", model_name="m")),
    ):
        assert (await refused(call))[0] is grpc.StatusCode.UNIMPLEMENTED


async def test_load_and_unload(client: aio_module.InferenceServerClient, server: HandServer) -> None:
    await client.load_model("plain")
    config = json.dumps({"backend": "onnxruntime"})
    await client.load_model("given", config=config, files={"file:1/model.onnx": b"\x00onnx"})
    assert server.loads == [("plain", None, {}), ("given", config, {"1/model.onnx": b"\x00onnx"})]
    with pytest.raises(InferenceServerException, match="no such file") as caught:
        await client.load_model("broken")
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    await client.unload_model("plain")
    await client.unload_model("given", unload_dependents=True)
    assert server.unloads == [("plain", False), ("given", True)]


async def test_wrong_parameters_of_load_and_unload(channel: grpc.aio.Channel, server: HandServer) -> None:
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    parameter = service_pb2.ModelRepositoryParameter
    for name, value, expected in (
        ("config", parameter(bytes_param=b"{}"), "expected string_param"),
        ("config", parameter(), "came as nothing"),
        ("file:1/model.onnx", parameter(string_param="x"), "expected bytes_param"),
        ("speed", parameter(int64_param=1), "'speed' is unknown"),
    ):
        request = service_pb2.RepositoryModelLoadRequest(model_name="m", parameters={name: value})
        code, details = await refused(stub.RepositoryModelLoad(request))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert expected in details
    for name, value, expected in (
        ("unload_dependents", parameter(int64_param=1), "expected bool_param"),
        ("force", parameter(bool_param=True), "'force' is unknown"),
    ):
        request = service_pb2.RepositoryModelUnloadRequest(model_name="m", parameters={name: value})
        code, details = await refused(stub.RepositoryModelUnload(request))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert expected in details
    assert server.loads == []
    assert server.unloads == []


async def test_load_goes_on_when_the_client_leaves(channel: grpc.aio.Channel, server: HandServer) -> None:
    server.load_gate = asyncio.Event()
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    call = stub.RepositoryModelLoad(service_pb2.RepositoryModelLoadRequest(model_name="m"))
    await asyncio.wait_for(server.arrived.wait(), 60)
    call.cancel()
    await asyncio.sleep(0.05)
    server.load_gate.set()
    async with asyncio.timeout(60):
        while not server.loads:
            await asyncio.sleep(0.01)
    assert server.loads == [("m", None, {})]


@pytest.mark.parametrize(
    ("method", "request_message"),
    [
        ("SystemSharedMemoryStatus", service_pb2.SystemSharedMemoryStatusRequest()),
        ("SystemSharedMemoryRegister", service_pb2.SystemSharedMemoryRegisterRequest(name="r", byte_size=1)),
        ("SystemSharedMemoryUnregister", service_pb2.SystemSharedMemoryUnregisterRequest()),
        ("CudaSharedMemoryStatus", service_pb2.CudaSharedMemoryStatusRequest()),
        ("CudaSharedMemoryRegister", service_pb2.CudaSharedMemoryRegisterRequest(name="r")),
        ("CudaSharedMemoryUnregister", service_pb2.CudaSharedMemoryUnregisterRequest()),
        ("TraceSetting", service_pb2.TraceSettingRequest()),
        ("LogSettings", service_pb2.LogSettingsRequest()),
    ],
)
async def test_what_is_not_offered(channel: grpc.aio.Channel, method: str, request_message: Any) -> None:
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    code, details = await refused(getattr(stub, method)(request_message))
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert "not offered" in details or "cannot be changed" in details


async def test_a_large_config(client: aio_module.InferenceServerClient, server: HandServer) -> None:
    message = ModelConfigMessage(name="identity")
    message.parameters["large"].string_value = "v" * 300_000
    model = server.models["identity"]
    server.models["identity"] = dataclasses.replace(model, config=dataclasses.replace(model.config, message=message))
    assert json.loads(server.config("identity").json)["parameters"] == {"large": {"string_value": "v" * 300_000}}
    config = (await client.get_model_config("identity")).config
    assert config.SerializeToString(deterministic=True) == message.SerializeToString(deterministic=True)


@pytest.mark.parametrize("service", ["", "inference.GRPCInferenceService"])
async def test_health_check(channel: grpc.aio.Channel, server: HandServer, service: str) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    assert (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status == SERVING
    server.is_up = False
    assert (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status == NOT_SERVING


async def test_health_of_an_unknown_service(channel: grpc.aio.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    code, _ = await refused(stub.Check(health_pb2.HealthCheckRequest(service="other")))
    assert code is grpc.StatusCode.NOT_FOUND
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="other"))
    assert (await watch.read()).status == SERVICE_UNKNOWN
    assert not watch.done()
    watch.cancel()


async def test_health_watch(channel: grpc.aio.Channel, server: HandServer, front_end: GrpcServer) -> None:
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == SERVING
    server.is_up = False
    assert (await asyncio.wait_for(watch.read(), 60)).status == NOT_SERVING
    server.is_up = True
    assert (await asyncio.wait_for(watch.read(), 60)).status == SERVING
    stopping = asyncio.create_task(front_end.stop(600))
    assert (await asyncio.wait_for(watch.read(), 60)).status == NOT_SERVING
    assert await asyncio.wait_for(watch.read(), 60) is grpc.aio.EOF
    await asyncio.wait_for(stopping, 60)


async def test_garbage_on_the_socket(front_end: GrpcServer, server: HandServer) -> None:
    port = await front_end.start()
    for garbage in (
        b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
        + b"\x00\xff\xff\x00\x00\x00\x00\x00\x01",
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(garbage)
        writer.write_eof()
        await asyncio.wait_for(reader.read(), 60)
        writer.close()
    async with aio_module.InferenceServerClient(f"127.0.0.1:{port}") as client:
        assert await client.is_server_live()


async def test_watch_looks_at_its_own_pace(server: HandServer) -> None:
    health = HealthService(server, interval_seconds=0.005)  # type: ignore[arg-type]
    told: list[int] = []

    wrote = asyncio.Event()

    class Context:
        async def write(self, message: bytes) -> None:
            told.append(health_pb2.HealthCheckResponse.FromString(message).status)
            wrote.set()

    watching = asyncio.create_task(health.watch(b"", Context()))  # type: ignore[arg-type]
    await asyncio.wait_for(wrote.wait(), 60)
    await asyncio.sleep(0.03)
    assert told == [SERVING], "an unchanged status was told again"
    wrote.clear()
    server.is_up = False
    await asyncio.wait_for(wrote.wait(), 60)
    assert told == [SERVING, NOT_SERVING]
    health.stop()
    await asyncio.wait_for(watching, 60)
    assert told == [SERVING, NOT_SERVING]


@pytest.mark.parametrize("is_folder_gone", [True, False])
async def test_clients_connect_though_temporary_files_were_removed(
    server: HandServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_folder_gone: bool
) -> None:
    temporary = tmp_path if len(str(tmp_path)) < 60 else Path(tempfile.mkdtemp(prefix="t"))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    front_end = GrpcServer(server, port=0)  # type: ignore[arg-type]
    address = f"127.0.0.1:{await front_end.start()}"
    options = [("grpc.use_local_subchannel_pool", 1)]
    live = "/inference.GRPCInferenceService/ServerLive"
    async with grpc.aio.insecure_channel(address, options) as before:
        assert await before.unary_unary(live)(b"", timeout=60)
        (folder,) = temporary.iterdir()
        (folder / "grpc").unlink()
        if is_folder_gone:
            folder.rmdir()

        async def connect() -> None:
            async with grpc.aio.insecure_channel(address, options) as channel:
                assert await channel.unary_unary(live)(b"", timeout=60, wait_for_ready=True)

        await asyncio.gather(*(connect() for _ in range(5)))
        assert len(list(temporary.iterdir())) == 1
        assert await before.unary_unary(live)(b"", timeout=60)
    await front_end.stop(0)
    assert list(temporary.iterdir()) == []
