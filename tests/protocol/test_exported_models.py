"""Decoders that others exported to ONNX, served without a config: OpenAI's client, and Triton's generate."""

import json
import shutil
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest

from support.process import Served, serve
from triune.backends.transformer.backend import missing_for_transformers

if reason := missing_for_transformers():
    pytest.skip(reason, allow_module_level=True)

FOLDER = Path(__file__).parents[1] / "contract" / "exports" / "models"
NAMES = ["genai-llama-int4", "optimum-llama"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("repository")
    for name in NAMES:
        shutil.copytree(FOLDER / name, folder / name / "1")
    with serve(folder, ready_seconds=110) as served:
        yield served


@pytest.mark.parametrize("name", NAMES)
def test_openai_client(served: Served, name: str) -> None:
    with openai.OpenAI(base_url=f"http://{served.http}/v1", api_key="none", max_retries=0) as client:
        assert name in [each.id for each in client.models.list()]

        def completed(prompt: str) -> str:
            answer = client.completions.create(model=name, prompt=prompt, max_tokens=16, temperature=0)
            assert answer.usage is not None
            assert answer.usage.prompt_tokens == len(prompt)
            return answer.choices[0].text

        prompts = [f"{'hello ' * 5}{index}" for index in range(6)]
        with ThreadPoolExecutor(len(prompts)) as pool:
            together = list(pool.map(completed, prompts))
        streamed = client.completions.create(model=name, prompt=prompts[0], max_tokens=16, temperature=0, stream=True)
        assert "".join(each.choices[0].text for each in streamed) == together[0]
        assert len(set(together)) > 1


@pytest.mark.parametrize("name", NAMES)
def test_generate(served: Served, name: str) -> None:
    body = {"text_input": "hello", "parameters": {"temperature": 0, "max_tokens": 8}}
    request = urllib.request.Request(f"http://{served.http}/v2/models/{name}/generate", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert json.loads(answer.read())["text_output"].startswith("hello")
