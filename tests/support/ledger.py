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

    def write(self, failures: Mapping[str, str], head: str, *sections: tuple[str, Mapping[str, str]]) -> None:
        """Replace the file. For a person, after a whole run.

        Args:
            failures: reasons by case.
            head: what the file begins with.
            sections: more failures, each set with a heading of its own.
        """
        parts: list[str] = []
        for heading, reasons in ((head, failures), *sections):
            lines = [f"# {line}" for line in heading.splitlines()]
            lines += [f"{case}: {' '.join(reasons[case].split())[:200]}" for case in sorted(reasons)]
            parts.append("\n".join(lines) + "\n")
        self.path.write_text("\n".join(parts))
