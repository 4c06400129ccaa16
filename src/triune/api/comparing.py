"""Compare the result of a conversion with its source: in this process without limits if the user asked for it, else in
another process with limits of time and memory.
"""

import json
import logging
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

from triune.core.datatypes import Array
from triune.core.errors import TriuneError
from triune.graph.blame import Verified
from triune.graph.verify import OutputVerdict
from triune.hosting import Limits, run_in_process

SECONDS: Final = 60.0
"""The time limit, in seconds, of a comparison that the user did not ask for."""

_LEAST_BYTES = 2 << 30
_TIMES = 6
"""A comparison that the user did not ask for may take this many times the size of the result in memory, or
`_LEAST_BYTES` if that is more.

A conversion takes three times its fp32 weights, which is six times the size of a result in fp16.
"""

Compare: TypeAlias = Callable[[], Verified]
"""A function that runs the source and the result of a conversion on the same inputs and compares their outputs. It can
be pickled.
"""


@dataclass(frozen=True, slots=True)
class Advice:
    """The ends of the notes that a comparison prints: each tells the user what to do, and names options of the command
    that was given.

    Attributes:
        larger: the end of the note that fp16 is wrong for large inputs, for users whose inputs are as large.
        wrong: the end of the note that fp16 is wrong for some kind of inputs, for users who have such inputs.
        left_out: the end of the note that some kinds of inputs were not compared.
        slow: the end of the note that the result was not run in Apple's interpreter, which would have taken too long.
    """

    larger: str = (
        "give some with --input, so that what loses them computes in fp32, or use --precision mixed --keep-fp32 NODE"
    )
    wrong: str = "convert in fp32 if such inputs occur"
    left_out: str = "give inputs that matter with --input"
    slow: str = "; --verify compares in the interpreter"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The options of a comparison.

    Attributes:
        given: inputs by name; the others are generated.
        is_limited: whether the comparison is abandoned after `SECONDS`, or if it fails.
        samples: whole sets of inputs of the user's; if there are any, only these are compared.
        advice: what the notes tell the user to do.
    """

    given: Mapping[str, Array] = field(default_factory=dict[str, Array])
    is_limited: bool = False
    samples: Sequence[Mapping[str, Array]] = ()
    advice: Advice = field(default_factory=Advice)


def compared(compare: Compare, result: Path, comparison: Comparison) -> tuple[Verified | None, str]:
    """Run a comparison, within the limits of time and memory of `comparison`.

    Args:
        compare: the function that runs source and result and compares them.
        result: the folder of the result.
        comparison: how to compare.

    Returns:
        the result, or None and the reason if the comparison was given up.

    Raises:
        TriuneError: the error that `compare` raised, if it is not limited.
    """
    if not comparison.is_limited:
        return compare(), ""
    # Limit the CPU time, too: if this process ends while a library holds the GIL in the worker process, the worker
    # does not notice it, and would go on.
    limits = Limits(
        load_seconds=SECONDS,
        memory_bytes=max(_LEAST_BYTES, _TIMES * sum(each.stat().st_size for each in result.rglob("*"))),
        cpu_seconds=math.ceil(2 * SECONDS * (os.cpu_count() or 1)),
    )
    with tempfile.TemporaryDirectory(prefix="triune-comparison-") as folder:
        path = Path(folder) / "verdicts.json"
        try:
            run_in_process(partial(_write, compare, path), "the comparison of source and result", limits)
        except TriuneError as error:
            return None, str(error)
        return _read(json.loads(path.read_text())), ""


def _write(compare: Compare, path: Path) -> None:
    # Do not show the log of Apple's interpreter to a user who did not ask for a comparison.
    logging.getLogger().setLevel(logging.WARNING)
    path.write_text(json.dumps(asdict(compare())))


def _read(entry: dict[str, Any]) -> Verified:
    verdicts: list[dict[str, Any]] = entry.pop("verdicts")
    return Verified([_read_verdict(each) for each in verdicts], **entry)


def _read_verdict(entry: dict[str, Any]) -> OutputVerdict:
    entry["shape"] = tuple(entry["shape"])
    entry["computed"] = tuple(entry["computed"]) if entry["computed"] is not None else None
    return OutputVerdict(**entry)
