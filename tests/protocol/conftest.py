from collections.abc import Iterator
from pathlib import Path

import pytest

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
