"""What several kinds of tests share: the zoo's models, and how much of a conformance suite runs."""

import gc
import logging
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from support.examples import load_profile
from triune.api import comparing
from triune.hosting import Limits
from triune.runtimes import conversion
from triune.zoo.packages import PackageCache
from triune.zoo.repository import build_repository


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole", action="store_true", help="run suites whole, not their fixed samples")


def pytest_configure(config: pytest.Config) -> None:
    load_profile(is_whole=config.getoption("--whole"))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of the cases of a test with the mark `sampled(n)`, every n-th runs; all of them with `--whole`.

    n and the numbers of the values of each parameter have no common factor, so that the sample has all values.
    """
    if config.getoption("--whole"):
        return
    kept: list[pytest.Item] = []
    left: list[pytest.Item] = []
    num_seen: Counter[str] = Counter()
    for item in items:
        test = item.nodeid.partition("[")[0]
        mark = item.get_closest_marker("sampled")
        (kept if mark is None or num_seen[test] % mark.args[0] == 0 else left).append(item)
        num_seen[test] += 1
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """coremltools collects garbage at each conversion: half a second, with the objects of all tests to look through."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def stride(request: pytest.FixtureRequest) -> int:
    """Of a conformance suite every so many-th case runs."""
    return 1 if request.config.getoption("--whole") else 12


@pytest.fixture
def converts_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversions, and comparisons of their answers, run in the process of the test, for tests of what they give. A
    process of their own takes a second to import what converts.
    """

    def run_here(work: Callable[[], object], name: str, limits: Limits | None = None) -> None:
        del name, limits
        level = logging.getLogger().level
        try:
            work()
        finally:
            logging.getLogger().setLevel(level)

    for module in (conversion, comparing):
        monkeypatch.setattr(module, "run_in_process", run_here)


@pytest.fixture(scope="session")
def packages() -> PackageCache:
    """The user's cache: packages are fetched once a machine."""
    return PackageCache()


@pytest.fixture(scope="session")
def common(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this run of tests have."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def models(common: Path, packages: PackageCache) -> Path:
    """All of the zoo's models, which the first process of tests builds for all. Nobody changes them."""
    folder = common / "zoo"
    built = build_repository(folder, cache=packages)
    assert [(each.name, each.reason) for each in built if each.reason] == []
    return folder
