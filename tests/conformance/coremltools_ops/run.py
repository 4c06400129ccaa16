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
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEDGER_PATH = ROOT / "conformance" / "coremltools_ops.ledger"
HEAD = """coremltools' own tests of its operations that fail with Triune, with the reason. fp32 and fp16 variants."""
_TESTS = Path("converters/mil/mil/ops/tests")
_ENVIRONMENT = {"PYMIL_TEST_TARGETS": "mlprogram", "INCLUDE_MIL_FP32_UNIT_TESTS": "1"}


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
    found = importlib.util.find_spec("coremltools")
    assert found is not None
    assert found.origin is not None
    package = Path(found.origin).parent
    with tempfile.TemporaryDirectory() as folder:
        reports = [Path(folder) / f"{part}.jsonl" for part in range(parts)]
        # Plugins are found by name, and coremltools' tests write files where they run.
        search = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        processes = [
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "pytest", "-q", "-q", "--no-header", "--tb=line"),
                    *("-c", os.devnull, "--rootdir", str(package.parent), "-p", "no:cacheprovider", "-W", "ignore"),
                    *("-p", "triune.coreml.pytest_plugin", "--coreml-executor", executor, "-p", "report"),
                    *("--report-to", str(report), "--every", str(every), "--part", f"{part}/{parts}"),
                    *("--continue-on-collection-errors", str(package / _TESTS / only)),
                ],
                cwd=folder,
                env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": search},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for part, report in enumerate(reports)
        ]
        outputs = [process.communicate()[0] for process in processes]
        for process, output in zip(processes, outputs, strict=True):
            # 0: all passed; 1: some failed. All else is no run: a crash, an option that is not known.
            if process.returncode not in (0, 1):
                raise RuntimeError(f"pytest ended with {process.returncode}: {output[-2000:]}")
        lines = [line for report in reports for line in report.read_text().splitlines()]
    records = [json.loads(line) for line in lines]
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
