"""Apple's own tests of `coreai-torch`: programs that they make, raised to ONNX and held to Apple's interpreter.

    python tests/conformance/coreai_torch/run.py --checkout ../coreai-torch --python ../venv/bin/python --cases cases
    python tests/conformance/coreai_torch/run.py --cases cases

The first collects, which takes hours: `--checkout` is one of https://github.com/apple/coreai-torch, `--python` that of
an environment with coreai-core, coreai-torch, torch, transformers, filecheck, pytest and pytest-asyncio. Both judge
what was collected, write the ledger anew and print a table.
"""

import argparse
import os
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from conformance.coreai_torch.judge import case_name, failure, family, folders
from support.apple_interpreter import Apart
from support.ledger import Ledger

LEDGER = Ledger(Path(__file__).parent.with_suffix(".ledger"))
HEAD = """Cases of coreai-torch's tests that do not become the same in ONNX Runtime, with reasons.
tests/conformance/coreai_torch/run.py writes this file."""
MODELS = str(Path(__file__).with_name("torch_models.py").resolve())
SUITES = (
    "tests/composite_ops",
    "tests/compression",
    "tests/ops",
    "tests/subgraph",
    "tests/test_converter.py",
    "tests/test_lower_simple_model.py",
    "tests/test_stateful.py",
)


def collect(checkout: Path, python: Path, cases: Path) -> None:
    """Run Apple's tests with the plugin that keeps what they compute."""
    environment = {**os.environ, "CASES": str(cases.resolve()), "USE_LOCAL_COREAI": "1"}
    given = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *([given] if given else [])])
    # Tests of what only macOS has fail; what they computed before that counts.
    for tests in (SUITES, ("--noconftest", MODELS)):
        command = [python, "-m", "pytest", "-p", "collect", "-q", *tests]
        subprocess.run(command, cwd=checkout, env=environment, check=False)


def judged(places: Sequence[Path], num_processes: int = 2) -> dict[str, str]:
    """What is wrong with each case, by name; nothing of those that are right."""

    def run(part: int) -> list[str]:
        apart = Apart(failure)
        return [_tried(apart, folder) for folder in places[part::num_processes]]

    with ThreadPoolExecutor(num_processes) as pool:
        parts = list(pool.map(run, range(num_processes)))
    return {
        case_name(folder): parts[index % num_processes][index // num_processes] for index, folder in enumerate(places)
    }


def _tried(apart: Apart, folder: Path) -> str:
    try:
        return apart(folder)
    except Exception as error:
        return f"error: {error}"


def table(found: Mapping[str, str]) -> str:
    """By Apple's files: how many are the same."""
    totals = Counter(family(case) for case in found)
    right = Counter(family(case) for case, wrong in found.items() if not wrong)
    rows = [f"| {name} | {totals[name]} | {right[name]} |" for name in sorted(totals)]
    share = f"{100 * right.total() / max(1, totals.total()):.1f}%"
    whole = f"| all | {totals.total()} | {right.total()} ({share}) |"
    return "\n".join(["| tests | calls | the same |", "| --- | --- | --- |", *rows, whole])


def main() -> None:
    """Collect where there is a checkout; judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, required=True, help="where cases are kept")
    parser.add_argument("--checkout", type=Path, help="Apple's repository, to collect cases from")
    parser.add_argument("--python", type=Path, help="that of the environment with torch and coreai-torch")
    given = parser.parse_args()
    if (given.checkout is None) != (given.python is None):
        parser.error("--checkout and --python go together")
    if given.checkout is not None:
        collect(given.checkout, given.python.absolute(), given.cases)
    found = judged(list(folders(given.cases)))
    LEDGER.write({case: wrong for case, wrong in found.items() if wrong}, HEAD)
    print(table(found))


if __name__ == "__main__":
    main()
