from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc
import tritonclient.http

from support.process import Served, serve
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


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, served: Served) -> Iterator[tuple[Any, Any]]:
    """A module of tritonclient, and a client of it."""
    module = {"http": tritonclient.http, "grpc": tritonclient.grpc}[request.param]
    with module.InferenceServerClient(getattr(served, request.param)) as made:
        yield module, made
