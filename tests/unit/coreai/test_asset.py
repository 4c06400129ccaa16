"""Assets with missing, truncated, changed or hostile parts: typed errors that name the file."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from support.coreai_programs import Sample, numbers, ops, save
from triune.core.errors import InvalidArgumentError, NotFoundError, UnsupportedError
from triune.coreai import asset as asset_module
from triune.coreai.asset import read_asset

SAMPLE = Sample(lambda x: ops.relu(x), {"x": numbers(2, 3)})


@pytest.fixture
def asset(tmp_path: Path) -> Path:
    return save(SAMPLE, tmp_path / "good.aimodel")


def test_an_asset_says_what_it_is(asset: Path) -> None:
    read = read_asset(asset)
    assert (read.version, read.producer.split()[0]) == ("2.0", "coreai-core")
    assert read.program_bytes == (asset / "main.mlirb").stat().st_size
    assert read.digest == hashlib.sha256((asset / "main.mlirb").read_bytes()).digest()


def test_custom_metadata_is_kept(asset: Path) -> None:
    file = asset / "metadata.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "userDefined": {"größe": "klein"}}))
    assert read_asset(asset).metadata["userDefined"] == {"größe": "klein"}


def _write_hash(asset: Path) -> None:
    (asset / "main.hash").write_bytes(hashlib.sha256((asset / "main.mlirb").read_bytes()).digest())


def _program(data: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def change(asset: Path) -> None:
        (asset / "main.mlirb").write_bytes(data((asset / "main.mlirb").read_bytes()))
        _write_hash(asset)

    return change


def _metadata(text: str) -> Callable[[Path], None]:
    return lambda asset: (asset / "metadata.json").write_text(text) and None


@pytest.mark.parametrize("name", ["main.mlirb", "main.hash", "metadata.json"])
def test_a_missing_part_is_named(asset: Path, name: str) -> None:
    (asset / name).unlink()
    with pytest.raises(InvalidArgumentError, match=f"'good.aimodel' has no '{name}'"):
        read_asset(asset)


@pytest.mark.parametrize("name", ["main.mlirb", "main.hash", "metadata.json"])
def test_links_are_not_followed(asset: Path, name: str, tmp_path: Path) -> None:
    (asset / name).rename(tmp_path / "elsewhere")
    (asset / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidArgumentError, match=f"'good.aimodel/{name}' is not a regular file"):
        read_asset(asset)


def test_a_pipe_is_not_read(asset: Path) -> None:
    (asset / "main.mlirb").unlink()
    os.mkfifo(asset / "main.mlirb")
    with pytest.raises(InvalidArgumentError, match="not a regular file"):
        read_asset(asset)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_program(lambda data: b""), "'good.aimodel/main.mlirb' is empty"),
        (_program(lambda data: b"PK\3\4" + data[4:]), "it is not MLIR bytecode"),
        (_program(lambda data: data[: len(data) // 2]), "broken or cut off"),
        (_program(lambda data: data[:20] + b"\xff" * 40 + data[60:]), "broken or cut off"),
        (lambda asset: (asset / "main.hash").write_bytes(b"\0" * 32), "was changed or cut off"),
        (lambda asset: (asset / "main.hash").write_bytes(b""), "was changed or cut off"),
        (_metadata("{"), "'good.aimodel/metadata.json' is not JSON"),
        (_metadata("[" * 100_000), "is not JSON"),
        (_metadata("[]"), "is not a JSON object"),
        (_metadata("{}"), "has no 'assetVersion'"),
        (_metadata('{"assetVersion": 2}'), "has no 'assetVersion'"),
        (_metadata('{"assetVersion": "two"}'), "has no 'assetVersion'"),
    ],
)
def test_what_is_broken_is_told(asset: Path, change: Callable[[Path], None], message: str) -> None:
    change(asset)
    with pytest.raises(InvalidArgumentError, match=message):
        read_asset(asset)


def test_other_versions_are_refused(asset: Path) -> None:
    _metadata('{"assetVersion": "3.0"}')(asset)
    with pytest.raises(UnsupportedError, match="of version 3.0 of the format; 2.x is read"):
        read_asset(asset)


def test_a_newer_bytecode_is_refused(asset: Path) -> None:
    _program(lambda data: data[:4] + bytes([41]) + data[5:])(asset)
    with pytest.raises(UnsupportedError, match="main.mlirb': its format is of version 20"):
        read_asset(asset)


def test_what_is_too_large_is_refused(asset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asset_module, "LARGEST_PROGRAM_BYTES", 100)
    with pytest.raises(UnsupportedError, match="at most 100 are read"):
        read_asset(asset)
    monkeypatch.setattr(asset_module, "LARGEST_METADATA_BYTES", 10)
    with pytest.raises(UnsupportedError, match="metadata.json' has more than 10 bytes"):
        read_asset(asset)


def test_a_file_or_nothing_is_no_asset(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no"):
        read_asset(tmp_path / "absent.aimodel")
    (tmp_path / "file.aimodel").write_text("")
    with pytest.raises(InvalidArgumentError, match="is not a folder"):
        read_asset(tmp_path / "file.aimodel")
