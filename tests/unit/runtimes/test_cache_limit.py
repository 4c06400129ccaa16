"""The cache of converted models keeps to its limit, and to what living processes use."""

import fcntl
import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from triune.runtimes import cache_holds
from triune.runtimes.cache_holds import collecting, hold_path, keep_for
from triune.runtimes.compiled_cache import CompiledCache

SIZE = 100_000


class Owner:
    """A model that was loaded of an entry."""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CompiledCache:
    monkeypatch.setenv("TRIUNE_CACHE_BYTES", str(3 * SIZE + SIZE // 2))
    return CompiledCache(tmp_path / "cache")


def make(path: Path) -> None:
    path.mkdir()
    (path / "model.onnx").write_bytes(b"x" * SIZE)


def use(cache: CompiledCache, name: str, age: int = 0) -> Owner:
    """Load a model of an entry, whose last use is moved back by `age` seconds."""
    owner = Owner()
    with collecting() as used:
        cache.get(name, make)
        keep_for(owner, used)
    sums = cache.folder / ".lock" / f"{name}.sums"
    moved = sums.stat().st_mtime - age
    os.utime(sums, (moved, moved))
    return owner


def names(cache: CompiledCache) -> list[str]:
    return sorted(each.name for each in cache.folder.iterdir() if not each.name.startswith("."))


def test_what_was_not_used_for_the_longest_time_is_removed(cache: CompiledCache) -> None:
    for age, name in ((30, "a"), (40, "b"), (20, "c")):
        use(cache, name, age)
    use(cache, "d")
    assert names(cache) == ["a", "c", "d"]
    # A hit is a use.
    use(cache, "a")
    use(cache, "e")
    assert names(cache) == ["a", "d", "e"]
    assert not [each for each in cache.folder.iterdir() if each.name.startswith(".making")]
    assert sorted(each.name for each in (cache.folder / ".lock").glob("*.sums")) == ["a.sums", "d.sums", "e.sums"]


def test_what_a_model_of_this_process_uses_stays_until_it_is_freed(cache: CompiledCache) -> None:
    owner = use(cache, "a", 100)
    for each in range(6):
        use(cache, f"b{each}", 50 - each)
    assert names(cache) == ["a", "b4", "b5"]
    del owner
    gc.collect()
    use(cache, "c")
    assert names(cache) == ["b4", "b5", "c"]


def test_a_failed_load_holds_nothing(cache: CompiledCache) -> None:
    def load() -> None:
        with collecting():
            cache.get("a", make)
            raise ValueError

    with pytest.raises(ValueError):
        load()
    gc.collect()
    for each in range(3):
        use(cache, f"b{each}")
    assert names(cache) == ["b0", "b1", "b2"]


def test_a_file_in_an_entry_holds_the_entry(cache: CompiledCache, tmp_path: Path) -> None:
    use(cache, "a", 100)
    owner = Owner()
    with collecting() as used:
        hold_path(cache.folder / "a/model.onnx")
        hold_path(tmp_path / "model.onnx")
        keep_for(owner, used)
    for each in range(4):
        use(cache, f"b{each}", 50 - each)
    assert names(cache) == ["a", "b2", "b3"]
    assert owner


_SERVER = """
import sys
from pathlib import Path
from triune.runtimes.compiled_cache import CompiledCache

CompiledCache(Path(sys.argv[1])).get("a", None)
print("holds", flush=True)
sys.stdin.read()
"""


def test_what_another_living_process_uses_stays(cache: CompiledCache, caplog: pytest.LogCaptureFixture) -> None:
    use(cache, "a", 100)
    command = [sys.executable, "-c", _SERVER, str(cache.folder)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"holds\n"
        sums = cache.folder / ".lock/a.sums"
        os.utime(sums, (0, 0))
        for each in range(5):
            use(cache, f"b{each}", 50 - each)
        assert names(cache) == ["a", "b3", "b4"]
        process.kill()
    use(cache, "c")
    assert names(cache) == ["b3", "b4", "c"]
    # The killed process's file is gone.
    assert len(list((cache.folder / ".lock/users").iterdir())) == 1
    assert not caplog.records


def test_what_all_is_used_is_more_than_the_limit(cache: CompiledCache, caplog: pytest.LogCaptureFixture) -> None:
    owners = [use(cache, name) for name in "abcde"]
    assert names(cache) == list("abcde")
    assert "raise the environment variable TRIUNE_CACHE_BYTES, or unload models" in caplog.text
    assert len(owners) == 5


def test_the_folders_of_the_cache_share_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIUNE_CACHE", str(tmp_path))
    monkeypatch.setenv("TRIUNE_CACHE_BYTES", str(2 * SIZE + SIZE // 2))
    for age, name in ((30, "coreml"), (20, "optimized"), (10, "custom"), (0, "coreai")):
        use(CompiledCache(name=name), "a", age)
    assert [each.parent.name for each in sorted(tmp_path.glob("*/a"))] == ["coreai", "custom"]


def test_nobody_waits_for_ever_for_one_that_has_stopped(cache: CompiledCache, monkeypatch: pytest.MonkeyPatch) -> None:
    use(cache, "a")
    monkeypatch.setattr(cache_holds, "_WAIT_SECONDS", 0.05)
    with (cache.folder / ".lock/users.lock").open() as stopped:
        fcntl.flock(stopped, fcntl.LOCK_EX)
        for name in "bcde":
            use(cache, name)
        assert names(cache) == list("abcde")
    use(cache, "f")
    assert names(cache) == list("def")
