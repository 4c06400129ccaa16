"""The commands of `triune`, imported when they are asked for."""

import errno
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from triune.cli import app, main


@pytest.mark.parametrize("name", ["serve", "demo", "units", "models", "infer", "convert", "predict"])
def test_every_command_has_its_help(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0
    assert f"{name} [OPTIONS]" in result.output


def test_the_help_names_every_command_with_what_it_does() -> None:
    output = CliRunner().invoke(app, ["--help"]).output
    assert "Serve model repositories" in output
    assert "Convert ONNX" in output


def test_an_unknown_command_is_refused_by_name() -> None:
    result = CliRunner().invoke(app, ["serv"])
    assert result.exit_code == 2
    assert "serv" in result.output


def test_a_server_imports_no_converter() -> None:
    code = "import sys, triune.cli.serve; print([name for name in sys.modules if 'lowering' in name])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_the_version_is_the_packages() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"triune {importlib.metadata.version('triune')}\n")


@pytest.mark.parametrize("closing", ["0<&- 1>&- 2>&-", "0<&- 1</etc/hosts 2</etc/hosts", "0<&- 1>&- 2</etc/hosts"])
def test_standard_descriptors_without_use_are_the_null_device(tmp_path: Path, closing: str) -> None:
    code = """
import os, sys
from triune.cli import main
sys.argv = ["triune", "--version"]
try:
    main()
finally:
    print("text")
    print("text", file=sys.stderr, flush=True)
    null = os.stat(os.devnull).st_rdev
    open(os.environ["FOUND"], "w").write(str([os.fstat(each).st_rdev == null for each in range(3)]))
"""
    command = f'exec {closing}; exec "$0" -c "$1"'
    environment = {**os.environ, "FOUND": str(tmp_path / "found")}
    done = subprocess.run(["sh", "-c", command, sys.executable, code], check=False, env=environment)
    assert (done.returncode, (tmp_path / "found").read_text()) == (0, "[True, True, True]")


@pytest.mark.parametrize("name", ["anyio._core._sockets", "anyio._core._streams", "google.protobuf.descriptor_pb2"])
def test_a_server_imports_at_its_start_what_it_needs_later(name: str) -> None:
    # What is imported later would be another version's, if packages were upgraded meanwhile.
    code = f"import sys, triune.cli.serve; sys.exit({name!r} not in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_stream_imports_nothing() -> None:
    """The event loop is not held for that, and what is imported later would be another version's after an upgrade."""
    code = """
import asyncio, sys
from support.hand_server import HandServer
from support.wire import Wire, post
from triune.frontends.kserve.http.server import HttpServer

async def main():
    front_end = HttpServer(HandServer(), "127.0.0.1", 0)
    wire = await Wire.open(await front_end.start())
    await wire.ask(post("/v2/models/repeat/generate", b'{"IN": [1]}'))
    before = set(sys.modules)
    await wire.ask(post("/v2/models/repeat/generate_stream", b'{"IN": [1, 2]}'))
    await wire.close()
    print(sorted(set(sys.modules) - before))
    await front_end.stop(0)

asyncio.run(main())
"""
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=path)
    assert done.stdout.strip() == "[]"


def test_a_full_disk_is_no_fault_of_a_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/there/out.txt")

    monkeypatch.setattr("triune.cli.app", full)
    with pytest.raises(SystemExit):
        main()
    message = capsys.readouterr().err
    assert "'/there/out.txt' cannot be written: No space left on device; make room" in message
    assert "fault of its own" not in message
