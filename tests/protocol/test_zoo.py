"""The zoo's models behind a real server, through the examples and Triton's client."""

import io
import json
import queue
import re
import subprocess
import sys
import urllib.request
import wave
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from PIL import Image

from support.process import Served
from triune.zoo.packages import PackageCache
from triune.zoo.repository import RECIPES
from triune.zoo.samples import read_picture

ROOT = Path(__file__).parents[2]


def example(name: str, *arguments: str | Path, status: int = 0) -> str:
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert result.returncode == status, result.stdout + result.stderr
    return result.stdout + result.stderr


def test_every_model_is_ready(real_models: Served) -> None:
    with tritonclient.http.InferenceServerClient(real_models.http) as client:
        index = {each["name"]: each.get("state") for each in client.get_model_repository_index()}
    assert index == {**dict.fromkeys(RECIPES, "READY"), "broken": "UNAVAILABLE"}


def test_pictures_are_named(real_models: Served) -> None:
    lines = example("classify_image.py", f"--url={real_models.http}").splitlines()
    assert lines[1].split() == ["38%", "Egyptian", "cat"]


def test_sentences_are_compared(real_models: Served) -> None:
    def cosine(*sentences: str) -> float:
        text = example("compare_sentences.py", *sentences, f"--url={real_models.grpc}")
        return float(re.findall(r"-?\d\.\d+", text)[-1])

    near = cosine("A cat sits on the mat.", "There is a cat on the rug.")
    far = cosine("A cat sits on the mat.", "The central bank raised its interest rates by half a percent on Thursday.")
    assert near == pytest.approx(0.697, abs=0.01)
    assert far < 0.2


def test_files_are_identified(real_models: Served, tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b'#!/bin/sh\nset -eu\nfor each in *.txt; do echo "$each"; done\n')
    text = example(
        "identify_file.py", f"--url={real_models.http}", "README.md", "src/triune/__init__.py", tmp_path / "short"
    )
    assert re.match(r"README.md: markdown \(\d+%\)\nsrc/triune/__init__.py: .*\n.*/short: shell", text)


def test_speech_is_found(real_models: Served, tmp_path: Path) -> None:
    """Half a second of silence, then a buzz under three formants for one second, then silence."""
    time = np.arange(16000) / 16000
    harmonics = 120 * np.arange(1, 34)
    gains = sum(w / (1 + ((harmonics - f) / 100) ** 2) for f, w in ((730, 1), (1090, 0.4), (2440, 0.2)))
    phases = 2 * np.pi * np.outer(harmonics, time + 0.0026 * np.sin(2 * np.pi * 3 * time))
    buzz = np.sin(phases).T @ gains * np.minimum(1, np.sin(np.pi * 4 * time) ** 2 * 3)
    sound = np.concatenate([np.zeros(8000), 0.3 * buzz / np.abs(buzz).max(), np.zeros(16000)])
    for name, samples in (("speech", sound), ("silence", np.zeros(16000))):
        with wave.open(str(tmp_path / f"{name}.wav"), "wb") as file:
            file.setparams((1, 2, 16000, len(samples), "NONE", ""))
            file.writeframes((samples * 32767).astype("<i2").tobytes())
    text = example("detect_speech.py", f"--url={real_models.grpc}", tmp_path / "speech.wav")
    begin = float(re.findall(r"speech from (\d\.\d+) s", text)[0])
    end = float(re.findall(r"to (\d\.\d+) s", text)[-1])
    assert 0.4 < begin < 0.9
    assert 1.2 < end < 1.8
    assert "no speech" in example("detect_speech.py", f"--url={real_models.grpc}", tmp_path / "silence.wav")
    assert "RIFF" in example("detect_speech.py", f"--url={real_models.grpc}", "README.md", status=2)


def test_sentences_of_all_lengths_share_batches(real_models: Served) -> None:
    """Each gets what it gets alone, of its own length, though they were padded to the longest of their batch."""
    rng = np.random.default_rng(0)
    rows = [np.array([[101, *rng.integers(1000, 30000, size), 102]], np.int64) for size in rng.integers(1, 60, 24)]

    def inputs(row: Any) -> list[Any]:
        values = {"input_ids": row, "attention_mask": np.ones_like(row), "token_type_ids": np.zeros_like(row)}
        tensors = [tritonclient.grpc.InferInput(name, row.shape, "INT64") for name in values]
        for tensor, value in zip(tensors, values.values(), strict=True):
            tensor.set_data_from_numpy(value)
        return tensors

    answers: queue.Queue[Any] = queue.Queue()
    with tritonclient.grpc.InferenceServerClient(real_models.grpc) as client:
        alone = [client.infer("minilm", inputs(row)) for row in rows]
        before = client.get_inference_statistics("minilm").model_stats[0]
        for index, row in enumerate(rows):
            client.async_infer("minilm", inputs(row), lambda result, error, i=index: answers.put((i, result, error)))
        for _ in rows:
            index, result, error = answers.get(timeout=60)
            assert error is None
            hidden = result.as_numpy("last_hidden_state")
            assert hidden.shape == (1, rows[index].shape[1], 384)
            np.testing.assert_allclose(hidden, alone[index].as_numpy("last_hidden_state"), atol=2e-5)
            np.testing.assert_allclose(
                result.as_numpy("sentence_embedding"), alone[index].as_numpy("sentence_embedding"), atol=2e-6
            )
        after = client.get_inference_statistics("minilm").model_stats[0]
    assert after.inference_count - before.inference_count == len(rows)
    assert after.execution_count - before.execution_count < len(rows)


def test_both_protocols_name_a_picture_alike(real_models: Served) -> None:
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        from classify_image import prepare
    finally:
        sys.path.pop(0)
    picture = prepare(Image.open(io.BytesIO(read_picture("chelsea", PackageCache()))))
    answers: list[str] = []
    for module, address in ((tritonclient.http, real_models.http), (tritonclient.grpc, real_models.grpc)):
        tensor = module.InferInput("image", picture.shape, "FP32")
        tensor.set_data_from_numpy(picture)
        wanted = module.InferRequestedOutput("probabilities", class_count=1)
        with module.InferenceServerClient(address) as client:
            result = client.infer("efficientnet_lite0", [tensor], outputs=[wanted])
        answers.append(result.as_numpy("probabilities")[0, 0].decode())
    assert re.fullmatch(r"0\.3\d+:285:Egyptian cat", answers[0])
    assert answers[0] == answers[1]


def test_both_protocols_and_generate_share_a_models_batches(real_models: Served) -> None:
    """Sentences of different lengths, a third each over HTTP, gRPC and generate: each as it is alone."""
    rng = np.random.default_rng(1)
    rows = [np.array([[101, *rng.integers(1000, 30000, size), 102]], np.int64) for size in rng.integers(1, 40, 24)]

    def values(row: np.ndarray) -> dict[str, np.ndarray]:
        return {"input_ids": row, "attention_mask": np.ones_like(row), "token_type_ids": np.zeros_like(row)}

    def ask(module: Any, client: Any, row: np.ndarray) -> np.ndarray:
        tensors = [module.InferInput(name, row.shape, "INT64") for name in values(row)]
        for tensor, value in zip(tensors, values(row).values(), strict=True):
            tensor.set_data_from_numpy(value)
        result = client.infer("minilm", tensors, outputs=[module.InferRequestedOutput("sentence_embedding")])
        return result.as_numpy("sentence_embedding")[0]

    def ask_http(row: np.ndarray) -> np.ndarray:
        with tritonclient.http.InferenceServerClient(real_models.http) as client:
            return ask(tritonclient.http, client, row)

    def ask_grpc(row: np.ndarray) -> np.ndarray:
        return ask(tritonclient.grpc, grpc_client, row)

    def ask_generate(row: np.ndarray) -> np.ndarray:
        body = json.dumps({name: value[0].tolist() for name, value in values(row).items()}).encode()
        url = f"http://{real_models.http}/v2/models/minilm/generate"
        with urllib.request.urlopen(url, body, timeout=60) as answer:
            return np.array(json.load(answer)["sentence_embedding"], np.float32)

    ways = [ask_http, ask_grpc, ask_generate]
    with (
        tritonclient.grpc.InferenceServerClient(real_models.grpc) as grpc_client,
        ThreadPoolExecutor(len(rows)) as threads,
    ):
        alone = [ask_grpc(row) for row in rows]
        before = grpc_client.get_inference_statistics("minilm").model_stats[0]
        together = [threads.submit(ways[index % 3], row) for index, row in enumerate(rows)]
        for row, expected in zip(together, alone, strict=True):
            np.testing.assert_allclose(row.result(60), expected, atol=1e-5)
        after = grpc_client.get_inference_statistics("minilm").model_stats[0]
    assert after.inference_count - before.inference_count == len(rows)
    assert after.execution_count - before.execution_count < len(rows)
