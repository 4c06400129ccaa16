"""The thread that waits for a process."""

import os
import subprocess
import sys

import pytest

from triune.hosting.watched import Watched


def test_killing_a_process_whose_end_was_just_seen_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    watched = Watched(process, "test", 5)

    def gone(pid: int, _: int) -> None:
        raise ProcessLookupError(f"no process {pid}")

    with monkeypatch.context() as patched:
        patched.setattr(os, "kill", gone)
        watched.kill()
    watched.kill()
    assert watched.wait(60) == "was killed by SIGKILL"
    watched.kill()
