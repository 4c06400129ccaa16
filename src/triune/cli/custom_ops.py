"""The option `--custom-ops` of several commands."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

CustomOpFiles: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(
        "--custom-ops",
        help="A Python file that defines operators with @triune.custom_op, or a shared library of operators for ONNX "
        "Runtime; may be repeated. It is run with all your rights.",
        show_default=False,
    ),
]
