"""The pictures of the first page: what real commands print, as SVG. `make pictures` draws them anew.

The models are small and made here; `demo.svg` shows the models of `triune demo`, which it downloads as packages.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from triune.zoo.repository import build_repository

HERE = Path(__file__).parent
COLUMNS = 96
THEME = TerminalTheme(
    (24, 26, 31),
    (213, 216, 222),
    [(24, 26, 31), (224, 108, 117), (126, 190, 107), (217, 169, 82), (97, 160, 227), (190, 125, 214), (86, 182, 194),
     (213, 216, 222)],
)  # fmt: skip
# As rich's own, without fonts from elsewhere and without a window's buttons.
FORMAT = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, monospace; font-size: {char_height}px;
  line-height: {line_height}px; font-variant-east-asian: full-width; white-space: pre; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: ui-monospace, Menlo, Consolas, monospace; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""


def main() -> None:
    """Draw all of them, or those that are named."""
    wanted = sys.argv[1:] or ["units", "convert", "plan", "demo"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_model(folder / "model.onnx")
        if "units" in wanted:
            draw("units", "triune units", printed(folder, "units"))
        if "convert" in wanted:
            command = "convert model.onnx -o model.mlpackage --shape x=1..16,64 --precision fp16 --verify"
            draw("convert", f"triune {command}", printed(folder, *command.split()))
        if "plan" in wanted:
            build_repository(folder, models=["minilm"])
            inputs = ("input_ids", "attention_mask", "token_type_ids")
            shapes = " ".join(f"--shape {name}=1,128" for name in inputs)
            command = f"plan minilm/1/model.onnx --chip m2-pro {shapes}"
            draw("plan", f"triune {command}", printed(folder, *command.split()), is_wrapped=True)
        if "demo" in wanted:
            with demo() as lines:
                draw("demo", "make demo", "".join(lines))


def save_model(path: Path) -> None:
    """A classifier of 64 numbers into 10 classes."""
    weight = np.random.default_rng(0).standard_normal((64, 10)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Softmax", ["z"], ["y"], axis=-1)],
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def printed(folder: Path, *arguments: str) -> str:
    """What a command prints in colour."""
    return subprocess.run(
        command(*arguments), cwd=folder, env=environment(), capture_output=True, text=True, check=True
    ).stdout


def command(*arguments: str) -> list[str]:
    """Of Triune."""
    return [sys.executable, "-m", "triune", *arguments]


def environment() -> dict[str, str]:
    """A terminal of a known width, in colour."""
    return {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}


@contextmanager
def demo() -> Iterator[list[str]]:
    """The table that `triune demo` prints once it serves."""
    ports = [f"--{name}-port=0" for name in ("http", "grpc", "metrics")]
    process = subprocess.Popen(command("demo", *ports), env=environment(), stderr=subprocess.PIPE, text=True)
    lines: list[str] = []
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if lines or "┏" in line:
                # Ports differ each time; those of the picture are the usual ones.
                lines.append(re.sub(r"127\.0\.0\.1:\d+", lambda _: f"127.0.0.1:{8000 + ports_shown(lines)}", line))
            if "/metrics" in line:
                break
        yield lines
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def ports_shown(lines: list[str]) -> int:
    """How many addresses there are among the lines."""
    return sum("127.0.0.1:" in line for line in lines)


def draw(name: str, title: str, text: str, is_wrapped: bool = False) -> None:
    """Text with terminal colours as a picture. `is_wrapped`: lines that are too long continue on the next."""
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi(f"$ {title}\n{text.rstrip()}"), soft_wrap=not is_wrapped)
    svg = console.export_svg(title="", theme=THEME, code_format=FORMAT, unique_id=name)
    (HERE / f"{name}.svg").write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n")


if __name__ == "__main__":
    main()
