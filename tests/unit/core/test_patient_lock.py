"""A lock that is waited for as long as its holder lives."""

import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from triune.core.patient_lock import patient_lock


def test_one_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    order: list[str] = []
    is_held = threading.Event()

    def second() -> None:
        is_held.wait(60)
        # The holder touches the file oftener than the other loses patience.
        with patient_lock(path, silent_seconds=1.0) as has_it:
            order.append(f"second {has_it}")

    thread = threading.Thread(target=second)
    thread.start()
    with patient_lock(path, beat_seconds=0.05) as has_it:
        is_held.set()
        time.sleep(1.5)
        order.append(f"first {has_it}")
    thread.join()
    assert order == ["first True", "second True"]


def test_a_holder_without_a_sign_of_life_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with patient_lock(path, silent_seconds=0.2) as has_it:
            assert not has_it
    with patient_lock(path) as has_it:
        assert has_it


def test_a_disk_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, os.strerror(37))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with patient_lock(tmp_path / "lock") as has_it:
        assert not has_it
