"""FolderStamps at models' folders that come again and again."""

import os
import threading
from pathlib import Path

import pytest

from triune.config import stamps
from triune.core.clock import VirtualClock
from triune.core.errors import InvalidArgumentError, UnavailableError
from triune.repository import folder_stamps as room
from triune.repository.folder_stamps import FolderStamps


class Counted:
    """FolderStamps that are really taken."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._stamp = stamps.stamp
        monkeypatch.setattr(room, "stamp", self)

    def __call__(self, *args: object) -> stamps.Stamp:
        self.count += 1
        return self._stamp(*args)  # type: ignore[arg-type]


async def test_what_is_refused_is_looked_at_ever_more_seldom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps, "_MAX_ENTRIES", 2)
    counted, clock = Counted(monkeypatch), VirtualClock()
    looks = FolderStamps(clock)
    (tmp_path / "large").mkdir()
    for name in "abc":
        (tmp_path / "large" / name).write_text("")
    folder = tmp_path / "link"
    folder.symlink_to("large")
    seconds: list[int] = []
    for second in range(0, 1500, 5):
        before = counted.count
        with pytest.raises(InvalidArgumentError, match="more than 2 files"):
            await looks.stamp_for_polling(folder, None)
        if counted.count > before:
            seconds.append(second)
        # What happens where the link leads to is no reason to look.
        (tmp_path / "large" / f"{second}").write_text("")
        clock.advance(5_000_000_000)
    assert seconds == [0, 15, 45, 105, 225, 465, 765, 1065, 1365]
    # Who asks for the model has it looked at.
    with pytest.raises(InvalidArgumentError):
        await looks.stamp_of(folder, None)
    assert counted.count == len(seconds) + 1
    # Another link is another thing.
    (tmp_path / "small").mkdir()
    folder.unlink()
    folder.symlink_to("small")
    assert await looks.stamp_for_polling(folder, None) == stamps.Stamp()


async def test_a_folder_of_many_files_is_looked_at_seldom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_MANY_FILES", 3)
    counted, clock = Counted(monkeypatch), VirtualClock()
    looks, known = FolderStamps(clock), None
    (tmp_path / "inner").mkdir()
    for num_files, second_look in ((2, 1), (3, 0)):
        (tmp_path / "inner" / f"{num_files}").write_text("")
        (tmp_path / f"{num_files}").write_text("")
        counted.count = 0
        known = await looks.stamp_for_polling(tmp_path, known)
        assert await looks.stamp_for_polling(tmp_path, known) == known
        assert counted.count == 1 + second_look
    (tmp_path / "inner" / "new").write_text("")
    clock.advance(3_999_999)
    assert await looks.stamp_for_polling(tmp_path, known) is known
    clock.advance(1)
    assert await looks.stamp_for_polling(tmp_path, known) != known


async def test_a_folder_that_was_changed_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps, "_MAX_ENTRIES", 2)
    counted, looks = Counted(monkeypatch), FolderStamps(VirtualClock())
    for name in "abc":
        (tmp_path / name).write_text("")
    for _ in range(3):
        with pytest.raises(InvalidArgumentError):
            await looks.stamp_for_polling(tmp_path, None)
    assert counted.count == 1
    (tmp_path / "c").unlink()
    os.utime(tmp_path, ns=(1, 1))
    assert set((await looks.stamp_for_polling(tmp_path, None)).files) == {"a", "b"}


async def test_folders_that_are_gone_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps, "_MAX_ENTRIES", 0)
    counted, looks = Counted(monkeypatch), FolderStamps(VirtualClock())
    (tmp_path / "a").write_text("")
    for kept in ([tmp_path], [], [tmp_path]):
        with pytest.raises(InvalidArgumentError):
            await looks.stamp_for_polling(tmp_path, None)
        looks.forget_others(kept)
    assert counted.count == 2


async def test_a_look_ends_when_the_server_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks, begun = FolderStamps(VirtualClock()), threading.Event()

    def endless(folder: Path, known: object, check: object) -> None:
        while True:
            begun.set()
            check()  # type: ignore[operator]

    monkeypatch.setattr(room, "stamp", endless)

    def close() -> None:
        begun.wait(60)
        looks.close()

    threading.Thread(target=close).start()
    with pytest.raises(UnavailableError, match="the server is stopping"):
        await looks.stamp_of(tmp_path, None)
