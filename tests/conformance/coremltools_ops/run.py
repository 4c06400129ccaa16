"""coremltools' own tests of its MIL operations, from the installed wheel, unmodified, with Triune computing.

`python tests/conformance/coremltools_ops/run.py` runs all of them, prints a table by family and writes the ledger anew.
"""

import argparse
import importlib.util
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from support.ledger import Ledger

ROOT = Path(__file__).parents[2]
LEDGER_PATH = ROOT / "conformance" / "coremltools_ops.ledger"
HEAD = """coremltools' own tests of its operations that fail with Triune, with the reason. Run with PyTorch.
Those that cannot pass, whatever computes, are judged anew in each run (coremltools_ops/trials.py); here are their
numbers by test:"""
# Those that were judged.
RAN = ("passed", "failed", "impossible")
_VARIANTS = ("fp16", "fp32")
_VERDICT = re.compile(r"cannot pass \((\w+)\): ")
_VARIANT = re.compile(r"\b(fp16|fp32)-iOS\d+\b")
_TESTS = Path("converters/mil/mil/ops/tests")
# Plugins that happen to be installed only cost time.
_ENVIRONMENT = {
    "PYMIL_TEST_TARGETS": "mlprogram",
    "INCLUDE_MIL_FP32_UNIT_TESTS": "1",
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
}


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a case.

    `outcome` is passed, failed, impossible (it failed, and could not have passed: see `trials`), skipped, xfailed
    (coremltools expects it) or unimportable.
    """

    case: str
    outcome: str
    reason: str
    num_predictions: int

    @property
    def family(self) -> str:
        """The operations it tests: the name of its file."""
        return Path(self.case.split("::")[0]).stem.removeprefix("test_")

    @property
    def verdict(self) -> str:
        """Why it could not have passed, in a word of `trials`."""
        found = _VERDICT.match(self.reason)
        return found[1] if found else ""

    @property
    def variant(self) -> str:
        """The precision that its programs are converted to; "" where it converts none or as it likes."""
        found = _VARIANT.search(self.case)
        return found[1] if found else ""


def run(every: int = 1, *, executor: str = "onnxruntime", parts: int = 2, only: str = "") -> list[Result]:
    """Run every so many-th case.

    Args:
        every: 1 for all.
        executor: what computes: "onnxruntime" or "reference".
        parts: processes at a time.
        only: a file or folder under coremltools' tests.
    """
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(parts) as pool:
        shares = [_Share(Path(folder), every, part, parts, executor, only) for part in range(parts)]
        return [result for results in pool.map(_Share.run, shares) for result in results]


@dataclass(frozen=True, slots=True)
class _Share:
    """What one process at a time does. Where it dies, the case is a failure and another goes on after it."""

    folder: Path
    every: int
    part: int
    parts: int
    executor: str
    only: str

    def run(self) -> list[Result]:
        report = self.folder / f"{self.part}.jsonl"
        report.touch()
        died: list[Result] = []
        while True:
            begun = [each for each in _read(report) if each.outcome == "begun"]
            code, output = self._process(report, len(begun))
            results = _read(report)
            # 0: all passed; 1: some failed; 5: there was nothing to run.
            if code in (0, 1, 5):
                return [each for each in results if each.outcome != "begun"] + died
            last = results[-1] if results else None
            if code > 0 or last is None or last.outcome != "begun":
                raise RuntimeError(f"pytest ended with {code}: {output[-2000:]}")
            died.append(Result(last.case, "failed", f"the process died of signal {-code}", 1))

    def _process(self, report: Path, num_done: int) -> tuple[int, str]:
        found = importlib.util.find_spec("coremltools")
        assert found is not None
        assert found.origin is not None
        package = Path(found.origin).parent
        # Plugins are found by name, and coremltools' tests write files where they run.
        search = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-q", "--no-header", "--tb=line"),
                *("-c", os.devnull, "--rootdir", str(package.parent), "-p", "no:cacheprovider", "-W", "ignore"),
                *("-p", "triune.coreml.pytest_plugin", "--coreml-executor", self.executor, "-p", "report"),
                *("--report-to", str(report), "--every", str(self.every)),
                *("--part", f"{self.part}/{self.parts}", "--done", str(num_done)),
                *("--continue-on-collection-errors", str(package / _TESTS / self.only)),
            ],
            cwd=self.folder,
            env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": search},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout


def _read(report: Path) -> list[Result]:
    records = [json.loads(line) for line in report.read_text().splitlines()]
    return [Result(each["case"], each["outcome"], each["reason"], each["predictions"]) for each in records]


def failures_of(results: Sequence[Result]) -> dict[str, str]:
    """The reasons by case, without those that could not have passed."""
    return {each.case: each.reason for each in results if each.outcome == "failed"}


def write_ledger(results: Sequence[Result], ledger: "Ledger") -> None:
    """Write the ledger anew. What did not run for want of PyTorch stays as it is."""
    ran = {each.case for each in results if each.outcome in RAN}
    kept = {} if importlib.util.find_spec("torch") else ledger.reasons
    failures = failures_of(results) | {case: reason for case, reason in kept.items() if case not in ran}
    impossible = Counter((each.case.split("[")[0], each.verdict) for each in results if each.outcome == "impossible")
    lines = [f"{test}: {count} {verdict}" for (test, verdict), count in sorted(impossible.items())]
    ledger.write(failures, "\n".join([*HEAD.splitlines(), *lines]))


def table(results: Sequence[Result]) -> str:
    """Counts by family and by variant, in Markdown.

    A test that predicts nothing checks coremltools alone, and is counted apart. "of those that can" leaves out the
    impossible.
    """
    lines = [
        "| family | executed | of them predict | passed | failed | cannot pass | skipped | expected failures "
        "| pass rate | of those that can |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    families = sorted({each.family for each in results})
    groups = {family: [each for each in results if each.family == family] for family in families}
    groups |= {f"all in {variant}": [each for each in results if each.variant == variant] for variant in _VARIANTS}
    groups["all"] = list(results)
    lines += [_row(name, group) for name, group in groups.items()]
    gone = [each for each in results if each.outcome == "unimportable"]
    lines += ["", *(f"Not importable: {each.case}: {each.reason}" for each in gone)]
    verdicts = Counter(each.verdict for each in results if each.outcome == "impossible")
    lines += [f"Cannot pass ({verdict}): {count}" for verdict, count in verdicts.most_common()]
    return "\n".join(lines)


def _row(name: str, group: Sequence[Result]) -> str:
    counts = Counter(each.outcome for each in group)
    ran = [each for each in group if each.outcome in RAN]
    predicting = sum(1 for each in ran if each.num_predictions or each.outcome == "failed")
    cells = [len(ran), predicting, *(counts[key] for key in ("passed", "failed", "impossible", "skipped", "xfailed"))]
    rates = [_rate(counts["passed"], num) for num in (len(ran), len(ran) - counts["impossible"])]
    return f"| {' | '.join(str(each) for each in (name, *cells, *rates))} |"


def _rate(num_passed: int, num_all: int) -> str:
    # Down, so that no 100.0% hides a failure.
    return f"{math.floor(1000 * num_passed / num_all) / 10:.1f}%" if num_all else "-"


def main() -> None:
    """Run from the command line."""
    sys.path.insert(0, str(ROOT))
    from support.ledger import Ledger

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="of all cases, run every so many-th; 1 writes the ledger")
    parser.add_argument("--executor", default="onnxruntime", choices=("onnxruntime", "reference"))
    parser.add_argument("--parts", type=int, default=2, help="processes at a time")
    parser.add_argument("--only", default="", help="a file or folder of coremltools' tests, as iOS14/test_conv.py")
    options = parser.parse_args()
    results = run(options.every, executor=options.executor, parts=options.parts, only=options.only)
    if options.every == 1 and not options.only and options.executor == "onnxruntime":
        write_ledger(results, Ledger(LEDGER_PATH))
    else:
        print("\n".join(f"{case}: {reason[:300]}" for case, reason in failures_of(results).items()))
    print(table(results))


if __name__ == "__main__":
    main()
