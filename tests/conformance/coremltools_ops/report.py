"""A pytest plugin for coremltools' own tests: which of them run, with which random numbers, and what came of each.

Loaded by `run.py` into the process that runs them. One JSON object a line: the case, its outcome, its reason, and how
often the stand-in predicted for it, so that a test which compares nothing is not mistaken for one that agrees.
"""

import gc
import json
import re
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from trials import Trials, seed

NEEDS_TORCH = "name 'torch' is not defined"
PREFIX = "coremltools/converters/mil/mil/ops/tests/"
# What every case says alike, or at length.
SHORTER = (
    (r"compute_unit=ComputeUnit\.CPU_ONLY-?", ""),
    (
        r"backend=BackendConfig\(backend='mlprogram', precision='(\w+)', opset_version=<AvailableTarget\.(\w+): \d+>\)",
        r"\1-\2",
    ),
    (r"<class 'numpy\.(\w+)'>", r"\1"),
    # The ledger's lines are cut at this.
    (": ", ":"),
)
DIFFERENCE = re.compile(
    r"Not equal to tolerance.*?Mismatched elements: (\d+ / \d+).*?Max absolute difference among violations: (\S+)"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--report-to", required=True, help="the file of results")
    parser.addoption("--every", type=int, default=1, help="of all cases, run every so many-th")
    parser.addoption("--part", default="0/1", help="0/2 and 1/2: every other case, and the others")
    parser.addoption("--done", type=int, default=0, help="leave out so many cases at the begin of the part")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Report(config), "triune-report")


class Report:
    def __init__(self, config: pytest.Config) -> None:
        self._path = Path(config.getoption("--report-to"))
        self._every: int = config.getoption("--every")
        self._part, self._parts = (int(each) for each in config.getoption("--part").split("/"))
        self._num_done: int = config.getoption("--done")
        self._num_predictions = 0
        self._reasons: dict[str, tuple[str, str]] = {}
        self._trials = Trials(config.getoption("--coreml-executor"))
        self._verdict = ""
        self._counted: Any = None

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        chosen = items[:: self._every]
        items[:] = chosen[self._part :: self._parts][self._num_done :]
        self._trials.install()

    def pytest_collection_finish(self) -> None:
        # coremltools collects garbage at each conversion: half of the time, with 17,000 cases to look through.
        gc.collect()
        gc.freeze()

    def _count_predictions(self) -> None:
        # A trial may have put another one in its place.
        proxy: Any = sys.modules["coremltools.libcoremlpython"]._MLModelProxy
        if proxy is self._counted:
            return
        self._counted, predict = proxy, proxy.predict

        def counting(*args: Any, **kwargs: Any) -> Any:
            self._num_predictions += 1
            return predict(*args, **kwargs)

        proxy.predict = counting

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.outcome == "passed" or self._part or self._num_done:
            return
        self._write(report.nodeid, "skipped" if report.skipped else "unimportable", _last_line(report))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        seed(item)
        self._verdict = ""
        self._count_predictions()
        self._num_predictions = 0
        # If the process dies, this is what is found.
        self._write(item.nodeid, "begun", "")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None]:
        try:
            return (yield)
        except AssertionError as error:
            num_predictions = self._num_predictions
            self._verdict = self._trials.verdict(item, error)
            self._num_predictions = num_predictions
            raise

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        outcome = "xfailed" if hasattr(report, "wasxfail") and report.skipped else report.outcome
        if outcome != "passed":
            reason = _last_line(report)
            # Some say by a NameError, not by a skip, that they need PyTorch.
            outcome = "skipped" if NEEDS_TORCH in reason and "torch" not in sys.modules else outcome
            if outcome == "failed" and self._verdict:
                outcome, reason = "impossible", f"cannot pass ({self._verdict}): {reason}"
            self._reasons[report.nodeid] = (outcome, reason)
        if report.when == "teardown":
            final, reason = self._reasons.pop(report.nodeid, ("passed", ""))
            self._write(report.nodeid, final, reason)

    def _write(self, node: str, outcome: str, reason: str) -> None:
        line = {
            "case": _short(node),
            "outcome": outcome,
            "reason": reason,
            "predictions": self._num_predictions,
        }
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def _short(node: str) -> str:
    case = node.removeprefix(PREFIX)
    for pattern, shorter in SHORTER:
        case = re.sub(pattern, shorter, case)
    return case


def _last_line(report: Any) -> str:
    """The message of an error or a skip, in a line."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        message = " ".join(crash.message.split())
        found = DIFFERENCE.search(message)
        if found:
            return f"{found[1]} elements differ, by up to {found[2].rstrip('.')}"
        return re.sub(r"[^\s']*/(?=tmp\w+\.ml)tmp\w+", "model", message)
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[-1])
    lines = str(report.longrepr).strip().splitlines()
    return lines[-1] if lines else ""
