"""What is kept is whole, or made again; nobody waits for ever for another who makes it."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from triune.core.errors import UnavailableError
from triune.runtimes import compiled_cache
from triune.runtimes.compiled_cache import CompiledCache

NAME = "a.mlpackage"


class Maker:
    """Makes an entry of two files, and counts."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, path: Path) -> None:
        self.count += 1
        (path / "Data").mkdir(parents=True)
        (path / "Data/weights").write_bytes(b"weights" * 1000)
        (path / "Manifest.json").write_text("{}")


class FileMaker(Maker):
    """Makes an entry that is a file."""

    def __call__(self, path: Path) -> None:
        self.count += 1
        path.write_bytes(b"file" * 1000)


@pytest.fixture
def cache(tmp_path: Path) -> CompiledCache:
    return CompiledCache(tmp_path / "cache")


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped": lambda entry: _flip(entry / "Data/weights"),
    "cut": lambda entry: _cut(entry / "Data/weights"),
    "empty": lambda entry: _empty(entry / "Manifest.json"),
    "lost": lambda entry: (entry / "Data/weights").unlink(),
    "a pipe": lambda entry: _pipe(entry / "Data/weights"),
    "without files": lambda entry: (shutil.rmtree(entry), entry.mkdir()),
    "another file": lambda entry: (shutil.rmtree(entry), entry.write_text("")),
    "a link to nothing": lambda entry: (shutil.rmtree(entry), entry.symlink_to("nowhere")),
    "unknown": lambda entry: shutil.rmtree(entry.parent / ".lock"),
    "known wrongly": lambda entry: _cut(entry.parent / f".lock/{NAME}.sums"),
    "known as nothing": lambda entry: (entry.parent / f".lock/{NAME}.sums").write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_entry_is_made_again(
    cache: CompiledCache, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    make = Maker()
    entry = cache.get(NAME, make)
    damage(entry)
    for _ in range(2):
        assert cache.get(NAME, make) == entry
    assert (entry / "Data/weights").read_bytes() == b"weights" * 1000
    assert (entry / "Manifest.json").read_text() == "{}"
    assert make.count == 2
    assert caplog.text.count("is thrown away, and made again") == 1
    assert sorted(each.name for each in cache.folder.iterdir()) == [".lock", NAME]


@pytest.mark.parametrize("damage", [_flip, _cut, _empty, _pipe, Path.unlink])
def test_an_entry_that_is_a_file(cache: CompiledCache, damage: Callable[[Path], object]) -> None:
    make = FileMaker()
    entry = cache.get(NAME, make)
    assert cache.get(NAME, make) == entry
    assert make.count == 1
    damage(entry)
    assert cache.get(NAME, make).read_bytes() == b"file" * 1000
    assert make.count == 2


def test_what_lies_beside_its_files_is_no_damage(cache: CompiledCache) -> None:
    make = Maker()
    (cache.get(NAME, make) / ".DS_Store").write_text("")
    cache.get(NAME, make)
    assert make.count == 1


def test_a_failure_keeps_nothing(cache: CompiledCache) -> None:
    def fail(path: Path) -> None:
        path.mkdir()
        raise ValueError

    with pytest.raises(ValueError):
        cache.get(NAME, fail)
    assert [each.name for each in cache.folder.iterdir()] == [".lock"]


def test_a_lock_that_is_held_for_ever_holds_up_nobody(
    cache: CompiledCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waits = compiled_cache.patient_lock
    monkeypatch.setattr(compiled_cache, "patient_lock", lambda path: waits(path, silent_seconds=0.2))
    # The lock of earlier versions.
    cache.folder.mkdir()
    with (cache.folder / ".lock").open("w") as old:
        fcntl.flock(old, fcntl.LOCK_EX)
        cache.get(NAME, Maker())
    with (cache.folder / f".lock/{NAME}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        make = Maker()
        _flip(cache.get(NAME, make) / "Data/weights")
        assert make.count == 0
        cache.get(NAME, make)
        # Another entry's lock is another.
        cache.get("b.mlpackage", make)
    assert make.count == 2
    assert caplog.text.count("without waiting for another") == 1


def test_two_that_do_not_wait_make_it_twice_and_both_have_it(
    cache: CompiledCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = compiled_cache.patient_lock
    monkeypatch.setattr(compiled_cache, "patient_lock", lambda path: waits(path, silent_seconds=0))
    other = Maker()

    class Overtaken(Maker):
        def __call__(self, path: Path) -> None:
            cache.get(NAME, other)
            super().__call__(path)

    make = Overtaken()
    entry = cache.get(NAME, make)
    assert (make.count, other.count) == (1, 1)
    assert cache.get(NAME, make) == entry
    assert make.count == 1


_KILLED = """
import os, signal, sys
from pathlib import Path
from triune.runtimes.compiled_cache import CompiledCache

def make(path):
    path.mkdir()
    (path / "half").write_text("half")
    print("making", flush=True)
    signal.pause()

CompiledCache(Path(sys.argv[1])).get("a.mlpackage", make)
"""


def test_what_one_that_was_killed_or_stopped_began_is_removed_and_made(
    cache: CompiledCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = compiled_cache.patient_lock
    monkeypatch.setattr(compiled_cache, "patient_lock", lambda path: waits(path, silent_seconds=0.2))
    command = [sys.executable, "-c", _KILLED, str(cache.folder)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        make = Maker()
        entry = cache.get(NAME, make)
        # It may go on: what it works in is its own.
        assert len([each for each in cache.folder.iterdir() if each.name.startswith(".making-")]) == 1
        process.kill()
    _flip(entry / "Data/weights")
    cache.get(NAME, make)
    assert make.count == 2
    assert sorted(each.name for each in cache.folder.iterdir()) == [".lock", NAME]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError, match="cannot write to .*TRIUNE_CACHE"):
        CompiledCache(tmp_path / "file/cache").get(NAME, Maker())
