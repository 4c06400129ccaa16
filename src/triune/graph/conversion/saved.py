"""The report that every conversion returns about the program that it saved."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from triune.graph.ane import Report as LayoutReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A saved program.

    Attributes:
        path: the folder: a .mlpackage or .aimodel.
        notes: what differs from the model or the options and why, such as quantized weights in a form that the target
            lacks, or nodes that fp16 cannot compute.
        layout: which nodes were brought into the Neural Engine's layout, and which were not and why; None if the
            options do not ask for that layout.
    """

    path: Path
    notes: Sequence[str]
    layout: LayoutReport | None
