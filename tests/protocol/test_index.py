"""The first page: its starts run as they stand, in a folder with a model, and its pictures are drawn by its script."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from support.process import TRIUNE, serve

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "index.md").read_text()


def section(title: str) -> str:
    """A part of the page."""
    return PAGE.partition(f"## {title}")[2].partition("\n## ")[0]


def blocks(text: str, language: str) -> list[str]:
    """The code of a language; "" is what has none."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def pictures() -> ModuleType:
    """The script that draws them."""
    sys.path.insert(0, str(DOCS / "pictures"))
    try:
        import make
    finally:
        sys.path.pop(0)
    return make


@pytest.fixture
def folder(tmp_path: Path, pictures: ModuleType) -> Path:
    """What the page supposes to be there: a model and an input."""
    pictures.save_model(tmp_path / "model.onnx")
    np.save(tmp_path / "x.npy", np.ones((2, 64), np.float32))
    return tmp_path


def run(command: list[str], folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "TRIUNE_CACHE": str(folder / "cache")}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_each_start_has_ten_lines_at_most() -> None:
    code = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert [language for language, _ in code] == ["", "bash", "bash", "python", "", "python"]
    assert max(len(block.splitlines()) for _, block in code) <= 10


@pytest.mark.timeout(300)
def test_a_core_ml_developer_s_start(folder: Path) -> None:
    pytest.importorskip("coremltools")
    text = section("You ship Core ML models")
    (commands,), (code,) = blocks(text, "bash"), blocks(text, "python")
    shown = run(["bash", "-euo", "pipefail", "-c", commands], folder)
    assert "right" in shown
    assert "float32[2, 10]" in shown
    found = run([sys.executable, "-c", code], folder)
    assert len(set(re.findall(r"\d+", found))) == 1, "both rows are the same"


@pytest.mark.timeout(300)
def test_a_triton_user_s_start(folder: Path) -> None:
    text = section("You run Triton")
    (command,), (code,) = blocks(text, ""), blocks(text, "python")
    words = command.replace("\\\n", " ").split()
    assert words[:2] == ["triune", "serve"]
    (folder / "models/my_model/1").mkdir(parents=True)
    (folder / "model.onnx").rename(folder / "models/my_model/1/model.onnx")
    flags = [word for word in words[2:] if word != "--model-repository=models"]
    assert len(flags) == len(words) - 3
    with serve(folder / "models", *flags, command=(TRIUNE, "serve")) as served:
        assert "127.0.0.1:8000" in code
        shown = run([sys.executable, "-c", code.replace("127.0.0.1:8000", served.http)], folder)
    assert shown.split("\n")[:2] == ["(2, 10)", "2"]


def test_pictures_are_there_and_drawn_by_the_script(
    folder: Path, pictures: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = re.findall(r"!\[(.+?)\]\(pictures/(\w+)\.svg\)", PAGE)
    assert sorted(name for _, name in named) == sorted(each.stem for each in (DOCS / "pictures").glob("*.svg"))
    for _, name in named:
        text = (DOCS / f"pictures/{name}.svg").read_text()
        assert len(text) < 32768
        assert "http" not in re.sub(r"http://(www\.w3\.org|127\.0\.0\.1)", "", text)
    monkeypatch.setattr(pictures, "HERE", folder)
    pictures.draw("units", "triune units", pictures.printed(folder, "units"))
    assert "triune&#160;units" in (folder / "units.svg").read_text()
