"""L0_grpc: what gRPC clients send beside what tests/protocol has of them."""

import grpc
import numpy as np
import pytest
import tritonclient.grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException, deserialize_bytes_tensor

from support.process import Served
from support.triton_tensors import tensors

triton = pytest.mark.triton
LARGE = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


@triton("L0_grpc/python_unit_test.py::test_duplicate_output_names_rejected")
def test_an_output_twice(examples: Served) -> None:
    inputs = tensors(tritonclient.grpc, {name: np.ones((1, 16), np.int32) for name in ("INPUT0", "INPUT1")})
    outputs = [tritonclient.grpc.InferRequestedOutput("OUTPUT0") for _ in range(2)]
    with tritonclient.grpc.InferenceServerClient(examples.grpc) as client:
        with pytest.raises(InferenceServerException, match="output 'OUTPUT0' already exists in request"):
            client.infer("simple", inputs, outputs=outputs)
        assert client.is_server_live()


def round_trip(served: Served, num_elements: int) -> None:
    """BYTES as typed contents come back as they went."""
    request = service_pb2.ModelInferRequest(model_name="string_identity")
    tensor = request.inputs.add(name="INPUT0", datatype="BYTES", shape=[num_elements])
    tensor.contents.bytes_contents.extend([b"A"] * num_elements)
    request.outputs.add(name="OUTPUT0")
    with grpc.insecure_channel(served.grpc, LARGE) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        response = stub.ModelInfer(request, timeout=60)
        assert list(response.outputs[0].shape) == [num_elements]
        assert len(response.raw_output_contents[0]) == 5 * num_elements
        assert (deserialize_bytes_tensor(response.raw_output_contents[0]) == b"A").all()
        assert stub.ModelReady(service_pb2.ModelReadyRequest(name="string_identity")).ready


@triton("L0_grpc/python_unit_test.py::test_bytes_contents_many_elements_serialization")
def test_more_elements_of_bytes_than_triune_takes(examples: Served) -> None:
    # Triton's case has ten times as many.
    round_trip(examples, (1 << 20) + 1)


def test_many_elements_of_bytes(examples: Served) -> None:
    round_trip(examples, 200_000)


@triton("L0_grpc/test.sh::grpc-health-probe")
def test_the_health_service(examples: Served) -> None:
    with grpc.insecure_channel(examples.grpc) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


@triton("L0_grpc/test.sh::a client that compresses")
@pytest.mark.parametrize("compression", [grpc.Compression.Deflate, grpc.Compression.Gzip])
def test_compressed_requests(examples: Served, compression: grpc.Compression) -> None:
    request = service_pb2.ModelInferRequest(model_name="onnx_zero_1_float32")
    request.inputs.add(name="INPUT0", datatype="FP32", shape=[1, 1000])
    request.raw_input_contents.append(bytes(4000))
    with grpc.insecure_channel(examples.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ModelInfer(request, compression=compression).raw_output_contents == [bytes(4000)]
