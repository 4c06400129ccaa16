"""The known failures of a conformance suite, each with its reason. The list may only become shorter."""

from collections.abc import Iterable, Mapping
from pathlib import Path


class Ledger:
    """A text file of lines `case: reason`, sorted; `#` begins a comment."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.reasons = dict(line.split(": ", 1) for line in lines if line and not line.startswith("#"))

    def judge(self, case: str, failure: str) -> None:
        """Fail the calling test if a case fails that is not listed, or passes although it is listed."""
        if failure and case not in self.reasons:
            raise AssertionError(f"{case}: {failure}")
        if not failure and case in self.reasons:
            raise AssertionError(f"{case} passes: take it off {self.path.name}")

    def judge_all(self, failures: Iterable[tuple[str, str]]) -> None:
        """Judge pairs of case and failure like `judge`, and report all problems together."""
        wrong: list[str] = []
        for case, failure in failures:
            try:
                self.judge(case, failure)
            except AssertionError as error:
                wrong.append(str(error))
        assert not wrong, "\n".join(wrong)

    def write(self, failures: Mapping[str, str], head: str) -> None:
        """Replace the file. A developer calls this after a complete run."""
        lines = [f"# {line}" for line in head.splitlines()]
        lines += [f"{case}: {' '.join(failures[case].split())[:200]}" for case in sorted(failures)]
        self.path.write_text("\n".join(lines) + "\n")
