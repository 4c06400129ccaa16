import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc
import tritonclient.http

from support.process import Served, serve
from support.shared_server import locked, shared
from triune.backends.transformer.backend import missing_for_transformers
from triune.zoo.repository import build_repository


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Triton's public example models, built by the zoo."""
    folder = tmp_path_factory.mktemp("repository")
    build_repository(folder, models=["simple", "simple_string", "simple_int8", "simple_identity", "identity_fp32"])
    return folder


@pytest.fixture(scope="session")
def served(repository: Path) -> Iterator[Served]:
    """A `triune serve` process over the example models, shared by the tests that leave it as they found it."""
    with serve(repository, "--model-control-mode=explicit", "--load-model=*") as running:
        yield running


@pytest.fixture(scope="session")
def real_server(models: Path, common: Path) -> Iterator[Served]:
    """A server of all of the zoo's models, and of one that is broken, for all processes of tests.

    The answers of smollm2 are reproducible, and so the same beside others. Its load, and that of Whisper, compile one
    precision instead of comparing two, which takes most of the time.
    """
    folder = common / "real"

    @contextlib.contextmanager
    def start() -> Iterator[Served]:
        linked(models, folder / "models")
        if not missing_for_transformers():
            configure(folder / "models" / "smollm2", reproducible="true")
            configure(folder / "models" / "whisper-tiny.en", precision="fp32")
        (folder / "models" / "broken" / "1").mkdir(parents=True)
        (folder / "models" / "broken" / "1" / "model.gguf").write_bytes(b"GGUF" + bytes(60))
        with serve(folder / "models", ready_seconds=300) as running:
            yield running
        shutil.rmtree(folder / "models")

    with shared(folder, start) as running:
        yield running


@pytest.fixture
def real_models(real_server: Served, common: Path) -> Iterator[Served]:
    """The server of the zoo's models, for one test at a time, which leaves it as it found it."""
    with locked(common / "real" / "turn"):
        yield real_server


def linked(models: Path, folder: Path) -> Path:
    """Copies of models, by links to their files, whose configs may be replaced."""
    for each in models.iterdir():
        if each.is_dir():
            shutil.copytree(each, folder / each.name, copy_function=os.link)
    return folder


def configure(model: Path, **parameters: str) -> None:
    """Add parameters to a model's config."""
    path = model / "config.pbtxt"
    text = path.read_text()
    path.unlink()
    more = (f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n' for key, value in parameters.items())
    path.write_text(text + "\n" + "".join(more))


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, served: Served) -> Iterator[tuple[Any, Any]]:
    """A module of tritonclient, and a client of it."""
    module = {"http": tritonclient.http, "grpc": tritonclient.grpc}[request.param]
    with module.InferenceServerClient(getattr(served, request.param)) as made:
        yield module, made
