"""Blocks in files: what comes back, after a restart as well, and what does not."""

import fcntl
import logging
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triune.core.datatypes import Array
from triune.engine.kv import folder_lock
from triune.engine.kv.block_files import BlockFiles
from triune.engine.kv.disk import MAX_PENDING, REST_SECONDS, DiskTier
from triune.engine.kv.hashes import BlockHash

LAYOUT = [((2, 3), np.dtype(np.float32)), ((5,), np.dtype(np.uint8))]
FILE_BYTES = 16 + 24 + 5


def name(number: int) -> BlockHash:
    return BlockHash(number.to_bytes(16, "big"))


def block(number: int) -> list[Array]:
    return [np.full((2, 3), number, np.float32), np.full(5, number % 256, np.uint8)]


def tier(folder: Path, num_files: int = 100) -> DiskTier:
    return DiskTier(folder / "key", num_files * FILE_BYTES + 3, LAYOUT)


def load(disk: DiskTier, number: int) -> list[Array] | None:
    disk.load(name(number))
    ((found, arrays),) = disk.take(20)
    assert found == name(number)
    assert not disk.is_loading
    return None if arrays is None else list(arrays)


def path(folder: Path, number: int) -> Path:
    return folder / "key" / f"{name(number).hex()}.kv"


def filled(folder: Path, count: int = 3) -> None:
    disk = tier(folder)
    for number in range(count):
        disk.store(name(number), block(number))
    disk.close()
    assert disk.files.num_stored == count


def test_blocks_come_back_after_a_restart(tmp_path: Path) -> None:
    filled(tmp_path)
    disk = tier(tmp_path)
    assert load(disk, 7) is None
    for number in range(3):
        assert disk.has(name(number))
        found = load(disk, number)
        assert found is not None
        for one, other in zip(found, block(number), strict=True):
            np.testing.assert_array_equal(one, other, strict=True)
    assert (disk.files.num_loaded, disk.files.num_broken) == (3, 0)
    disk.close()


def test_a_block_that_waits_to_be_written_is_there_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sequence that follows at once must not find less than one that comes a moment later."""
    is_open = threading.Event()
    write = Path.open

    def slow(self: Path, *arguments: Any, **options: Any) -> Any:
        assert is_open.wait(20)
        return write(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", slow)
        disk = tier(tmp_path)
        disk.store(name(0), block(0))
        disk.store(name(1), block(1))
        assert disk.has(name(1))
        disk.load(name(1))
        is_open.set()
        found: list[tuple[BlockHash, Any]] = []
        while not found:
            found = disk.take(1)
    np.testing.assert_array_equal(found[0][1][0], block(1)[0], strict=True)
    assert disk.files.num_loaded == 0, "it came from memory: loads go before what waits to be written"
    disk.close()
    assert disk.files.num_stored == 2


@pytest.mark.parametrize("place", [0, 15, 16, FILE_BYTES - 1])
def test_a_flipped_bit_is_a_miss(tmp_path: Path, place: int) -> None:
    filled(tmp_path)
    content = bytearray(path(tmp_path, 1).read_bytes())
    content[place] ^= 4
    path(tmp_path, 1).write_bytes(content)
    disk = tier(tmp_path)
    assert load(disk, 1) is None
    assert load(disk, 0) is not None
    assert not disk.has(name(1))
    assert not path(tmp_path, 1).exists()
    assert disk.files.num_broken == 1
    disk.close()


def test_a_file_under_the_name_of_another_is_a_miss(tmp_path: Path) -> None:
    filled(tmp_path)
    path(tmp_path, 1).replace(path(tmp_path, 2))
    disk = tier(tmp_path)
    assert load(disk, 2) is None
    assert disk.files.num_broken == 1
    disk.close()


@pytest.mark.parametrize("kind", ["pipe", "device", "larger file", "socket"])
def test_what_is_no_file_is_a_miss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    filled(tmp_path)
    # The names of sockets are short.
    monkeypatch.chdir(tmp_path)
    disk, place = tier(Path()), path(Path(), 1)
    assert load(disk, 0) is not None
    place.unlink()
    with socket.socket(socket.AF_UNIX) as listening:
        if kind == "pipe":
            os.mkfifo(place)
        elif kind == "device":
            place.symlink_to("/dev/zero")
        elif kind == "socket":
            listening.bind(str(place))
        else:
            place.write_bytes(bytes(FILE_BYTES + 1))
        assert load(disk, 1) is None
    assert load(disk, 2) is not None
    assert not disk.has(name(1))
    assert not place.exists()
    disk.store(name(1), block(1))
    disk.close()
    assert (disk.files.num_broken, disk.files.num_stored) == (1, 1)


def test_a_pipe_in_the_way_of_a_block_does_not_hold_it_up(tmp_path: Path) -> None:
    disk = tier(tmp_path)
    assert load(disk, 1) is None
    os.mkfifo(path(tmp_path, 1).with_suffix(f".{os.getpid()}.part"))
    disk.store(name(1), block(1))
    assert load(disk, 1) is not None
    disk.close()
    assert path(tmp_path, 1).is_file()


def test_truncated_and_half_written_files_are_deleted(tmp_path: Path) -> None:
    filled(tmp_path)
    os.truncate(path(tmp_path, 0), FILE_BYTES - 1)
    half = path(tmp_path, 9).with_suffix(".part")
    half.write_bytes(b"half")
    (tmp_path / "old key").mkdir()
    (tmp_path / "old key" / "x.kv").write_bytes(b"old")
    disk = tier(tmp_path)
    assert load(disk, 0) is None
    assert load(disk, 1) is not None
    disk.close()
    assert disk.files.num_broken == 1
    assert sorted(tmp_path.rglob("*.kv")) == [path(tmp_path, 1), path(tmp_path, 2)]


def test_the_least_recently_used_files_make_room(tmp_path: Path) -> None:
    disk = tier(tmp_path, 3)
    for number in range(3):
        disk.store(name(number), block(number))
        disk.wait_for_room()
    assert load(disk, 0) is not None
    disk.store(name(3), block(3))
    disk.store(name(3), block(3))
    disk.close()
    assert {each.name for each in (tmp_path / "key").glob("*.kv")} == {path(tmp_path, n).name for n in (0, 2, 3)}
    assert disk.files.num_stored == 4
    for number, seconds in ((0, 10), (2, 30), (3, 20)):
        os.utime(path(tmp_path, number), (seconds, seconds))
    disk = tier(tmp_path, 1)
    disk.close()
    assert [each.name for each in (tmp_path / "key").glob("*.kv")] == [path(tmp_path, 2).name]


def test_folders_of_other_weights_are_deleted_and_those_of_other_units_stay(tmp_path: Path) -> None:
    def unit(name: str, others: tuple[str, ...]) -> DiskTier:
        return DiskTier(tmp_path / name, 100 * FILE_BYTES, LAYOUT, others)

    for folder, others in (("cpu-old", ()), ("amx-old", ("cpu-",)), ("cpu-new", ("amx-",))):
        disk = unit(folder, others)
        disk.store(name(1), block(1))
        disk.close()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["amx-old", "cpu-new"]
    both = unit("cpu-new", ("amx-",)), unit("amx-old", ("cpu-",))
    assert [each.has(name(1)) for each in both] == [True, True]
    for each in both:
        each.close()


def test_folders_of_other_weights_stay_while_a_server_uses_them(tmp_path: Path) -> None:
    size = 100 * FILE_BYTES
    first = DiskTier(tmp_path / "first", size, LAYOUT)
    first.store(name(1), block(1))
    first.wait_for_room()
    second = DiskTier(tmp_path / "second", size, LAYOUT)
    second.store(name(2), block(2))
    second.wait_for_room()
    first.store(name(3), block(3))
    first.wait_for_room()
    assert [load(first, 1) is None, load(first, 3) is None, load(second, 2) is None] == [False] * 3
    first.close()
    second.close()
    DiskTier(tmp_path / "third", size, LAYOUT).close()
    assert [each.name for each in tmp_path.iterdir()] == ["third"]


def test_a_folder_that_is_removed_while_it_is_taken_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, opened = tmp_path / "folder", os.open
    num_removed = 0

    def slow(path: Any, flags: int, mode: int = 0o777, **options: Any) -> int:
        nonlocal num_removed
        descriptor = opened(path, flags, mode, **options)
        if flags & os.O_CREAT and num_removed < 2:
            num_removed += 1
            folder_lock.remove_unless_held(folder)
        return descriptor

    monkeypatch.setattr(folder_lock.os, "open", slow)
    hold = folder_lock.FolderHold(folder)
    hold.take()
    assert num_removed == 2
    assert folder.exists()
    folder_lock.remove_unless_held(folder)
    assert folder.exists()
    hold.release()
    folder_lock.remove_unless_held(folder)
    assert not folder.exists()


def test_servers_that_share_a_folder_keep_to_the_limit_together(tmp_path: Path) -> None:
    one, other = tier(tmp_path, 4), tier(tmp_path, 4)
    for number in range(6):
        each = (one, other)[number % 2]
        each.store(name(number), block(number))
        each.wait_for_room()
        assert len(list((tmp_path / "key").glob("*.kv"))) <= 4
    # What the other server has written is there for both, once it was seen.
    assert load(one, 3) is not None
    assert load(one, 0) is None
    one.close()
    other.close()
    assert {each.name for each in (tmp_path / "key").glob("*.kv")} == {path(tmp_path, n).name for n in range(2, 6)}


def test_servers_that_share_a_folder_do_not_list_it_at_each_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triune.engine.kv.block_files._LIST_SECONDS", 1e9)
    lists: list[BlockFiles] = []
    listed = BlockFiles._list

    def counted(self: BlockFiles, *, is_first: bool) -> None:
        lists.append(self)
        listed(self, is_first=is_first)

    monkeypatch.setattr(BlockFiles, "_list", counted)
    servers = tier(tmp_path, 128), tier(tmp_path, 128)

    def write(numbers: range) -> int:
        lists.clear()
        for number in numbers:
            servers[number % 2].store(name(number), block(number))
            servers[number % 2].wait_for_room()
            assert len(list((tmp_path / "key").glob("*.kv"))) <= 128
        return len(lists)

    # Only when it may be full, and then once for some of the files.
    assert write(range(120)) <= 2
    assert write(range(120, 320)) <= 120
    assert 120 <= len(list((tmp_path / "key").glob("*.kv"))) <= 128
    # What the others have written is seen after a while.
    monkeypatch.setattr("triune.engine.kv.block_files._LIST_SECONDS", -1)
    write(range(320, 322))
    assert servers[1].has(name(320))
    for each in servers:
        each.close()


def test_a_server_that_starts_leaves_what_another_is_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writing, goes_on = threading.Event(), threading.Event()
    replace = Path.replace

    def slow(self: Path, target: Path) -> Path:
        writing.set()
        assert goes_on.wait(20)
        return replace(self, target)

    one = tier(tmp_path)
    monkeypatch.setattr(Path, "replace", slow)
    one.store(name(1), block(1))
    assert writing.wait(20)
    other = tier(tmp_path)
    # It waits for the lock, or would have deleted the half-written file by now.
    time.sleep(0.1)
    goes_on.set()
    assert other.has(name(1))
    one.close()
    other.close()
    assert one.files.num_stored == 1
    assert path(tmp_path, 1).is_file()


def test_a_lock_that_somebody_holds_turns_the_tier_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(folder_lock, "WAIT_SECONDS", 0.1)
    disk = tier(tmp_path)
    assert load(disk, 0) is None
    with (tmp_path / "key" / ".lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with caplog.at_level(logging.WARNING):
            disk.store(name(1), block(1))
            disk.wait_for_room()
    disk.close()
    assert disk.files.num_stored == 0
    assert "another process holds" in caplog.text


def test_no_room_at_all_stores_nothing(tmp_path: Path) -> None:
    disk = tier(tmp_path, 0)
    disk.store(name(0), block(0))
    disk.close()
    assert (disk.files.num_stored, disk.num_dropped) == (0, 1)


def test_blocks_that_come_too_fast_are_dropped(tmp_path: Path) -> None:
    disk = tier(tmp_path, 1000)
    for number in range(10 * MAX_PENDING):
        disk.store(name(number), block(number))
    disk.close()
    assert disk.files.num_stored + disk.num_dropped == 10 * MAX_PENDING
    assert disk.files.num_stored >= MAX_PENDING


def test_a_disk_that_refuses_is_left_alone_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    filled(tmp_path)
    path(tmp_path, 5).mkdir()
    (path(tmp_path, 5) / "x").touch()
    disk = tier(tmp_path)
    assert load(disk, 0) is not None
    with caplog.at_level(logging.WARNING):
        disk.store(name(5), block(5))
        disk.wait_for_room()
    assert not disk.has(name(0))
    assert load(disk, 0) is None
    disk.store(name(6), block(6))
    now += REST_SECONDS
    assert load(disk, 0) is not None
    disk.store(name(7), block(7))
    disk.close()
    assert not disk.files.has(name(6))
    assert disk.files.has(name(7))
    assert "are not used for 60 s" in caplog.text
    assert "make room there" in caplog.text


def test_a_folder_that_cannot_be_made_turns_the_tier_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "key").touch()
    disk = tier(tmp_path)
    disk.store(name(0), block(0))
    disk.close()
    assert disk.files.num_stored == 0
    assert "are not used any more" in caplog.text
