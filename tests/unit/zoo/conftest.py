from pathlib import Path

import pytest

from triune.zoo.packages import PackageCache
from triune.zoo.progress import Outcome
from triune.zoo.repository import build_repository


@pytest.fixture(scope="session")
def packages() -> PackageCache:
    """The user's cache: packages are fetched once a machine."""
    return PackageCache()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, packages: PackageCache) -> Path:
    """All of the zoo's models, built."""
    folder = tmp_path_factory.mktemp("zoo")
    built = build_repository(folder, cache=packages)
    assert [(each.name, each.reason) for each in built if each.outcome is not Outcome.BUILT] == []
    return folder
