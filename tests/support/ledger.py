"""What a conformance suite is known to fail, case by case with its reason. A ledger only shrinks."""

from collections.abc import Iterable, Mapping
from pathlib import Path


class Ledger:
    """A text file of lines `case: reason`, sorted; `#` begins a comment."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.reasons = dict(line.split(": ", 1) for line in lines if line and not line.startswith("#"))

    def judge(self, case: str, failure: str) -> None:
        """Fail the test that calls this where a case fails that should not, or passes though it is listed."""
        if failure and case not in self.reasons:
            raise AssertionError(f"{case}: {failure}")
        if not failure and case in self.reasons:
            raise AssertionError(f"{case} passes: take it off {self.path.name}")

    def judge_all(self, failures: Iterable[tuple[str, str]]) -> None:
        """As `judge`, for pairs of case and failure; what is wrong with any of them is told together."""
        wrong: list[str] = []
        for case, failure in failures:
            try:
                self.judge(case, failure)
            except AssertionError as error:
                wrong.append(str(error))
        assert not wrong, "\n".join(wrong)

    def write(self, failures: Mapping[str, str], head: str) -> None:
        """Replace the file. For a person, after a whole run."""
        lines = [f"# {line}" for line in head.splitlines()]
        lines += [f"{case}: {' '.join(failures[case].split())[:200]}" for case in sorted(failures)]
        self.path.write_text("\n".join(lines) + "\n")
