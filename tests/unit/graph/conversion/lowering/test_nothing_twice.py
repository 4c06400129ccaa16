"""What two targets lower in the same way is written once, in `graph.conversion.lowering`."""

import ast
import itertools
import re
from collections import Counter
from pathlib import Path

import triune

_TARGETS = ("coreml/lowering", "coreai/lowering", "metal")

_MOST_IN_COMMON = 12

_SIGNATURE = re.compile(r"def \w+\(.*\) -> .+:")


def _lines(path: Path) -> Counter[str]:
    text = path.read_text()
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        is_documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if isinstance(node, ast.Import | ast.ImportFrom):
            skipped.update(range(node.lineno, (node.end_lineno or 0) + 1))
        elif is_documented and ast.get_docstring(node) is not None:
            skipped.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    stripped = {number: line.strip() for number, line in enumerate(text.splitlines(), start=1) if number not in skipped}
    return Counter(
        line
        for line in stripped.values()
        if re.search(r"\w", line) and not line.startswith("#") and not _SIGNATURE.fullmatch(line)
    )


def test_no_pair_of_files_of_lowerings_has_more_than_a_dozen_lines_in_common() -> None:
    """A line counts as often as both files have it, without its indentation.

    Imports, blank lines, comments, docstrings and lines of brackets alone do not count, nor does a signature in one
    line: those of methods are given by `Builder`, and those of lowerings by `Lowering`.
    """
    root = Path(triune.__file__).parent
    files = {path: _lines(path) for target in _TARGETS for path in (root / target).rglob("*.py")}
    assert len(files) > 100
    common = {
        (str(one.relative_to(root)), str(other.relative_to(root))): (files[one] & files[other]).total()
        for one, other in itertools.combinations(files, 2)
    }
    assert {pair: count for pair, count in common.items() if count > _MOST_IN_COMMON} == {}


def test_what_is_written_twice_is_found(tmp_path: Path) -> None:
    one, other = tmp_path / "one.py", tmp_path / "other.py"
    head = '"""One."""\nimport os\n\ndef f(c: int) -> None:\n'
    one.write_text(f'{head}    """Two."""\n    x = 1\n    # x\n    y = (\n    )\n')
    other.write_text(f"{head}    y = (\n    )\n    x = 1\n    x = 1\n")
    assert _lines(one) == {"x = 1": 1, "y = (": 1}
    assert (_lines(one) & _lines(other)).total() == 2
