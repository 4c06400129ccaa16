"""coremltools' own tests of its MIL operations, from the installed wheel, unmodified, with Triune computing.

`python tests/conformance/coremltools_ops/run.py` runs all of them, prints a table by family and writes the ledger anew.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEDGER_PATH = ROOT / "conformance" / "coremltools_ops.ledger"
HEAD = """coremltools' own tests of its operations that fail with Triune, with the reason; fp32 and fp16 variants.
In "fp32-" cases that differ by 0.0001 to 0.01 and have fp16 among their types the program computes in fp16 or gives
fp16, and the tolerance of 0.0001 is finer than that; in TestConstexprLutToSparse, TestConstexprSparseToDense and
test_sparse_lut the program adds in fp32 what the expected answer adds in fp16. Triune's numpy interpreter differs there
by the same. "assert 0 == 2" counts casts, of which programs in fp32 have none."""
_TESTS = Path("converters/mil/mil/ops/tests")
# Plugins that happen to be installed only cost time.
_ENVIRONMENT = {
    "PYMIL_TEST_TARGETS": "mlprogram",
    "INCLUDE_MIL_FP32_UNIT_TESTS": "1",
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
}


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a case: `outcome` is passed, failed, skipped, xfailed (coremltools expects it) or unimportable."""

    case: str
    outcome: str
    reason: str
    num_predictions: int

    @property
    def family(self) -> str:
        """The operations it tests: the name of its file."""
        return Path(self.case.split("::")[0]).stem.removeprefix("test_")


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
    """The reasons by case."""
    return {each.case: each.reason for each in results if each.outcome == "failed"}


def table(results: Sequence[Result]) -> str:
    """Counts by family, in Markdown. A test that predicts nothing checks coremltools alone, and is counted apart."""
    lines = [
        "| family | executed | of them predict | passed | failed | skipped | expected failures | pass rate |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    families = sorted({each.family for each in results})
    for family in [*families, "all"]:
        chosen = [each for each in results if family in (each.family, "all")]
        counts = Counter(each.outcome for each in chosen)
        ran = [each for each in chosen if each.outcome in ("passed", "failed")]
        predicting = sum(1 for each in ran if each.num_predictions or each.outcome == "failed")
        rate = f"{100 * counts['passed'] / len(ran):.1f}%" if ran else "-"
        lines.append(
            f"| {family} | {len(ran)} | {predicting} | {counts['passed']} | {counts['failed']} | "
            f"{counts['skipped']} | {counts['xfailed']} | {rate} |"
        )
    gone = [each for each in results if each.outcome == "unimportable"]
    lines += ["", *(f"Not importable: {each.case}: {each.reason}" for each in gone)]
    return "\n".join(lines)


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
    failures = failures_of(results)
    if options.every == 1 and not options.only and options.executor == "onnxruntime":
        Ledger(LEDGER_PATH).write(failures, HEAD)
    else:
        print("\n".join(f"{case}: {reason[:300]}" for case, reason in failures.items()))
    print(table(results))


if __name__ == "__main__":
    main()
