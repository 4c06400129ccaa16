"""A launch command as Triton's users have it starts Triune unchanged."""

import socket
from pathlib import Path

import numpy as np
import tritonclient.grpc

from support.process import free_ports, serve
from support.repositories import affine, write_model


def test_tritons_usual_launch_command(tmp_path: Path) -> None:
    write_model(tmp_path / "models", "affine", v1=affine())
    log = tmp_path / "log"
    (http,) = free_ports(1)
    flags = (
        f"--model-store={tmp_path / 'models'}",
        "--allow-http=FALSE",
        f"--http-port={http}",
        "--allow-grpc",
        "true",
        "--allow-metrics=1",
        "--allow-cpu-metrics=false",
        "--grpc-address=localhost",
        "--metrics-address=127.0.0.1",
        "--metrics-interval-ms=500",
        "--metrics-config=summary_latencies=true",
        "--metrics-config",
        "summary_quantiles=0.5:0.05,0.9:0.01",
        "--strict-readiness=true",
        "--strict-model-config=false",
        "--exit-on-error",
        "false",
        "--exit-timeout-secs=5",
        "--model-control-mode=explicit",
        "--load-model=*",
        "--model-load-thread-count=2",
        "--backend-config=onnxruntime,default-max-batch-size=16",
        "--backend-config=onnxruntime,enable-global-threadpool=1",
        "--pinned-memory-pool-byte-size=268435456",
        "--cuda-memory-pool-byte-size=0:67108864",
        "--http-thread-count",
        "16",
        "--grpc-infer-thread-count=4",
        "--grpc-keepalive-time=10000",
        "--grpc-keepalive-permit-without-calls=1",
        "--grpc-infer-response-compression-level=high",
        "--log-verbose=0",
        "--log-info=true",
        "--log-format=default",
        f"--log-file={log}",
    )
    with serve(tmp_path / "models", *flags) as served:
        with tritonclient.grpc.InferenceServerClient(served.grpc) as client:
            assert client.is_model_ready("affine")
            assert client.get_model_config("affine").config.max_batch_size == 16
            given = tritonclient.grpc.InferInput("x", [3, 4], "FP32")
            given.set_data_from_numpy(np.ones((3, 4), np.float32))
            assert client.infer("affine", [given]).as_numpy("y").tolist() == [[2.0] * 4] * 3
        host, port = served.metrics.split(":")
        with socket.create_connection((host, int(port)), 10) as metrics:
            metrics.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            text = b"".join(iter(lambda: metrics.recv(65536), b"")).decode()
        assert 'nv_inference_count{model="affine",version="1"} 3' in text
        assert 'nv_inference_pending_request_count{model="affine",version="1"} 0' in text
        assert 'nv_inference_request_summary_us_count{model="affine",version="1"} 1' in text
        assert 'nv_inference_queue_summary_us{model="affine",version="1",quantile="0.9"}' in text
        assert 'triune_batch_size_bucket{model="affine",version="1",le="4"} 1' in text
        assert "nv_cpu" not in text
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", http)) != 0, "HTTP was turned off"
    warnings = [line for line in log.read_text().splitlines() if line.startswith("W")]
    assert len(warnings) == 1
    for flag in ("--pinned-memory-pool-byte-size", "--cuda-memory-pool-byte-size", "enable-global-threadpool"):
        assert flag in warnings[0]
