"""Convert a model, compare the result with its source, and convert again with more nodes in fp32 if it was wrong."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeAlias

from triune.api.comparing import Advice, Compare, Comparison, compared
from triune.graph.ane import Report as LayoutReport
from triune.graph.audit import Finding
from triune.graph.blame import Verified
from triune.graph.verify import OutputVerdict, Verdict

_ROUNDS: Final = 3
"""The most conversions of one model, if each comparison finds further nodes that should compute in fp32."""

Tell: TypeAlias = Callable[[str], None]
"""A function that receives progress messages."""


@dataclass(frozen=True, slots=True)
class ConversionResult:
    """The result of a conversion.

    Attributes:
        renamed: for each name of the source that had to change, the new name.
        verdicts: the verdict on each output; None if nothing was compared.
        not_compared: why a comparison was given up; "" if none was.
        layout: the report of the Neural Engine's layout; None if it was not requested.
        notes: what differs from the source, and why.
        findings: the outputs that a compiler pass changed; None if the passes were not checked.
    """

    renamed: Mapping[str, str] = field(default_factory=dict[str, str])
    verdicts: Sequence[OutputVerdict] | None = None
    not_compared: str = ""
    layout: LayoutReport | None = None
    notes: Sequence[str] = ()
    findings: Sequence[Finding] | None = None

    @property
    def verdict(self) -> Verdict | None:
        """The worst verdict of all outputs. None if nothing was compared."""
        if self.verdicts is None:
            return None
        found = {each.verdict for each in self.verdicts}
        return next((each for each in (Verdict.WRONG, Verdict.RIGHT) if each in found), Verdict.UNKNOWN)


Convert: TypeAlias = Callable[[frozenset[str]], tuple[ConversionResult, Compare]]
"""Converts a model in which the named values are computed in fp32 (`ConversionOptions.wide`). Returns the result, and
the function that compares it with the source."""


def notes_of(functions: Mapping[str, Sequence[str]]) -> list[str]:
    """The notes on several functions, each note with the names of its functions. With only one function, names are left
    out.
    """
    names: dict[str, list[str]] = {}
    for name, notes in functions.items():
        for note in notes:
            names.setdefault(note, []).append(name)
    return [note if len(functions) == 1 else f"{', '.join(named)}: {note}" for note, named in names.items()]


def in_rounds(convert: Convert, output: Path, comparison: Comparison | None, tell: Tell) -> ConversionResult:
    """Convert a model, and compare it. If the comparison finds nodes for which fp16 is not exact enough, convert it
    again with these nodes in fp32.

    Args:
        convert: converts the model. It must free the model before it returns, since a comparison may take as much
            memory as a conversion.
        output: the folder of the result.
        comparison: the options of the comparison; None for no comparison.
        tell: receives progress messages.

    Returns:
        the last result, with the verdicts on it, and notes on nodes in fp32 and on inputs for which fp16 is wrong.
    """
    wide: frozenset[str] = frozenset()
    notes: dict[str, None] = {}
    num_rounds = 0
    while True:
        num_rounds += 1
        done, compare = convert(wide)
        if comparison is None:
            return done
        tell("running both")
        verified, why = compared(compare, output, comparison)
        if verified is None:
            return replace(done, not_compared=why, notes=[*done.notes, *notes])
        notes |= dict.fromkeys(verified.notes)
        done = replace(done, verdicts=verified.verdicts)
        if not verified.wide or num_rounds == _ROUNDS:
            return replace(done, notes=[*done.notes, *notes, *_doubts(verified, comparison.advice)])
        tell(f"converting again with {len(verified.wide)} more nodes in fp32")
        wide |= frozenset(verified.wide)


def _doubts(verified: Verified, advice: Advice) -> Iterator[str]:
    if kinds := verified.doubts:
        more = f" and {len(kinds) - 4} more kinds" if len(kinds) > 4 else ""
        yield (
            f"fp16 answers wrongly on generated {', '.join(kinds[:4])}{more}, and no few nodes were found that could "
            f"compute in fp32 instead: {advice.wrong}"
        )
    if verified.num_tried < verified.num_sets:
        yield (
            f"{verified.num_tried} of {verified.num_sets} kinds of generated inputs were compared, since the time for "
            f"that was over: {advice.left_out}"
        )
    if verified.largest:
        yield f"{verified.largest}. If yours are as large, {advice.larger}"
