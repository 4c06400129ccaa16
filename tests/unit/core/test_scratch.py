"""Folders that are gone when whoever made them is."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from triune.core import scratch
from triune.core.scratch import PREFIX, HeldFolder, own_temporary_folder, remove_held, sweep


def test_it_is_private_and_goes_with_all_that_is_in_it(tmp_path: Path) -> None:
    folder = HeldFolder(tmp_path)
    with folder as path:
        assert path.stat().st_mode & 0o077 == 0
        (path / "a/b").mkdir(parents=True)
        (path / "a/b/c").write_text("c")
    assert list(tmp_path.iterdir()) == []
    folder.remove()


def test_a_folder_that_is_changed_while_it_is_removed_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove, calls = shutil.rmtree, []

    def remove_all_but_what_is_made_meanwhile(path: Path, *, ignore_errors: bool) -> None:
        remove(path, ignore_errors=ignore_errors)
        calls.append(path)
        if len(calls) < 3:
            (path / "made").mkdir(parents=True)

    monkeypatch.setattr(scratch.shutil, "rmtree", remove_all_but_what_is_made_meanwhile)
    monkeypatch.setattr(scratch, "_held", set())
    monkeypatch.setattr(scratch, "_ending", threading.Event())
    monkeypatch.setattr(scratch, "_AGAIN_SECONDS", 60)
    HeldFolder(tmp_path)
    remove_held()
    assert len(calls) == 3
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match="this process is ending"):
        HeldFolder(tmp_path)
    assert list(tmp_path.iterdir()) == []


_KILLED = """
import os, signal, sys
from pathlib import Path
from typing import Any
from triune.core.scratch import HeldFolder
folder = HeldFolder(Path(sys.argv[1]))
(folder.path / "left").mkdir()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)], check=False, env=_env())
    (tmp_path / "other").mkdir()
    (tmp_path / f"{PREFIX}file").write_text("")
    (tmp_path / f"{PREFIX}link").symlink_to(tmp_path / "other")
    assert len(list(tmp_path.iterdir())) == 4
    held = HeldFolder(tmp_path)
    sweep(tmp_path)
    assert set(tmp_path.iterdir()) == {
        tmp_path / "other",
        tmp_path / f"{PREFIX}file",
        tmp_path / f"{PREFIX}link",
        held.path,
    }
    held.remove()
    sweep(tmp_path / "nowhere")


def test_a_file_system_without_locks_keeps_the_folders_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    (tmp_path / f"{PREFIX}other").mkdir()
    with HeldFolder(tmp_path) as path:
        sweep(tmp_path)
        assert set(tmp_path.iterdir()) == {path, tmp_path / f"{PREFIX}other"}


def test_a_folder_that_another_process_sweeps_at_once_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, made = tempfile.mkdtemp, []

    def made_and_swept(**where: Any) -> str:
        made.append(make(**where))
        if len(made) < 3:
            sweep(tmp_path)
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", made_and_swept)
    with HeldFolder(tmp_path) as path:
        assert (path.is_dir(), str(path), len(made)) == (True, made[-1], 3)


def test_temporary_files_of_all_libraries_are_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with own_temporary_folder():
        left = Path(tempfile.mkdtemp())
        assert left.parent.parent == tmp_path
        place = subprocess.run(
            [sys.executable, "-c", "import tempfile; print(tempfile.mkdtemp())"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert Path(place.stdout.strip()).parent == left.parent
    assert list(tmp_path.iterdir()) == []
    assert os.environ["TMPDIR"] == str(tmp_path)
    assert Path(tempfile.gettempdir()) == tmp_path


def test_where_none_can_be_made_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with own_temporary_folder():
        assert tempfile.tempdir == str(tmp_path / "nowhere")


_ENDED = """
import os, signal, sys, time
from pathlib import Path
from triune.api.staging import staged
from triune.core.scratch import own_temporary_folder
# The tests may run under nohup, and a signal that is ignored stays so.
signal.signal(int(sys.argv[2]), signal.SIG_DFL)
with own_temporary_folder(), staged(Path(sys.argv[1], "model.onnx")) as path:
    path.write_text("half")
    os.kill(os.getpid(), int(sys.argv[2]))
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_told_to_end_leaves_no_folders(tmp_path: Path, number: signal.Signals) -> None:
    temporary, output = tmp_path / "temporary", tmp_path / "output"
    temporary.mkdir()
    ended = subprocess.run(
        [sys.executable, "-c", _ENDED, str(output), str(int(number))],
        check=False,
        env=_env() | {"TMPDIR": str(temporary)},
    )
    assert ended.returncode == 128 + number
    assert not list(temporary.iterdir())
    assert not list(output.iterdir())


_LEFT = """
import os, threading
from triune.core.scratch import HeldFolder, remove_held

def load():
    with HeldFolder() as folder:
        (folder / "half").write_text("half")
        is_written.set()
        threading.Event().wait()

is_written = threading.Event()
threading.Thread(target=load, daemon=True).start()
is_written.wait()
remove_held()
os._exit(0)
"""


def test_folders_of_threads_that_still_run_are_removed(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", _LEFT], check=True, env=_env() | {"TMPDIR": str(tmp_path)})
    assert not list(tmp_path.iterdir())


def _env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_a_folder_that_something_removed_is_made_again(tmp_path: Path) -> None:
    held = HeldFolder(tmp_path)
    held.path.rmdir()
    held.restore()
    assert held.path.stat().st_mode & 0o077 == 0
    sweep(tmp_path)
    assert held.path.is_dir(), "it is locked again"
    (held.path / "content").touch()
    held.restore()
    assert list(held.path.iterdir()) == [held.path / "content"]
    held.remove()
    held.restore()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_not_made_in_the_place_of_another(tmp_path: Path) -> None:
    held = HeldFolder(tmp_path)
    held.path.rmdir()
    held.path.symlink_to(tmp_path)
    with pytest.raises(FileExistsError):
        held.restore()
    held.path.unlink()


def test_what_is_held_does_not_grow_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "_held", set())
    used, removed = HeldFolder(tmp_path), HeldFolder(tmp_path)
    file = used.path / "model" / "weights"
    file.parent.mkdir()
    file.write_bytes(b"weights")
    for each in (used.path, file.parent, file):
        os.utime(each, (1, 2))
    removed.path.rmdir()
    scratch.renew_held()
    for each in (used.path, file.parent, file):
        assert each.stat().st_atime > 1e9
        assert each.stat().st_mtime == 2
    assert removed.path.is_dir()
