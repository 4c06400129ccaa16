"""Programs of several operators, drawn at random, converted to both forms: the answers of the source, or a refusal.

Single operators are held to ONNX's node tests; what compilers do to several of them shows only here.
`python tests/conformance/test_compositions.py FIRST COUNT [FORM [PRECISION]]` tells what became of the programs of
those seeds.
"""

import collections
import sys
from collections.abc import Iterator, Sequence

import pytest

from support.apple_interpreter import Apart
from support.compositions.generate import program
from support.compositions.judging import Verdict, judge

WHOLE = 2000
SAMPLE = 5
FORMS = ("mlpackage", "aimodel")
PRECISIONS = ("fp32", "fp16")


def _judged(argument: tuple[int, str, str]) -> Verdict:
    return judge(*argument)


def verdicts(seeds: Sequence[int], form: str, precision: str) -> Iterator[tuple[int, Verdict]]:
    """Each as it comes, from a process that Apple's library may end."""
    apart = Apart(_judged)
    for seed in seeds:
        yield seed, _tried(apart, (seed, form, precision))


def _tried(apart: Apart, argument: tuple[int, str, str]) -> Verdict:
    try:
        return apart(argument)
    except Exception as error:
        return Verdict("broken", str(error))


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("form", FORMS)
def test_no_program_is_converted_to_another(form: str, precision: str, stride: int) -> None:
    seeds = range(WHOLE if stride == 1 else SAMPLE)
    found = dict(verdicts(seeds, form, precision))
    faults = {program(seed).title: each for seed, each in found.items() if each.kind in ("wrong", "broken")}
    assert faults == {}
    # What is refused is not converted wrongly; a converter that refuses much is none.
    assert sum(each.kind == "right" for each in found.values()) >= 0.9 * len(found)


def test_programs_are_the_same_again() -> None:
    assert program(7).model == program(7).model
    assert len({program(seed).steps for seed in range(50)}) > 40


def main() -> None:
    """Tell of every program that is not right, and count."""
    first, count = int(sys.argv[1]), int(sys.argv[2])
    for form in sys.argv[3:4] or FORMS:
        for precision in sys.argv[4:5] or PRECISIONS:
            counts: collections.Counter[str] = collections.Counter()
            for seed, each in verdicts(range(first, first + count), form, precision):
                counts[each.kind] += 1
                if each.kind != "right":
                    print(f"{form} {precision} {each.kind} {program(seed).title}: {each.text}", flush=True)
            print(f"{form} {precision}: {dict(counts)}", flush=True)


if __name__ == "__main__":
    main()
