"""Logits of a unit are held to those of fp32 on the CPU."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from support.graphs import model_of
from triune.backends.gate.gate import Gate
from triune.backends.gate.kept import KeptVerdicts
from triune.backends.gate.logits import (
    MOST_SECONDS,
    NO_MEMORY,
    NUM_TOKENS,
    JudgedDecoder,
    Trusted,
    compare_logits,
    judge_decoder,
    logits_of,
    sample_tokens,
)
from triune.config.placement import Recipe
from triune.core.clock import VirtualClock
from triune.core.decoder import DecoderStep
from triune.core.errors import InternalError, InvalidArgumentError
from triune.core.units import Unit
from triune.core.verdict import Verdict
from triune.graph.held import HeldModel
from triune.runtimes.machine import Machine

RNG = np.random.default_rng(5)
LOGITS = RNG.normal(3, 2, (6, 50)).astype(np.float32)
Change = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def verdict_of(found: NDArray[np.float32], precision: str = "fp32", tolerance: float = 0.1) -> Verdict:
    return compare_logits(LOGITS, found, precision=precision, tolerance=tolerance)


def test_equal_logits_and_nearly_equal_ones_pass() -> None:
    same = verdict_of(LOGITS.copy())
    assert (same.excess, same.relative, same.largest, same.agreement) == ("", 0, 0, 1)
    assert same.cosine == pytest.approx(1)
    near = verdict_of(LOGITS + RNG.normal(0, 0.05, LOGITS.shape).astype(np.float32))
    assert near.excess == ""
    assert 0 < near.relative < 0.1


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers(number: float) -> None:
    found = LOGITS.copy()
    found[3, 7] = number
    assert verdict_of(found, tolerance=1e9).excess == "its logits are NaN or infinite"


def test_what_is_infinite_in_fp32_too_is_no_error() -> None:
    expected = LOGITS.copy()
    expected[:, 4] = -np.inf
    assert compare_logits(expected, expected.copy(), precision="fp32", tolerance=0.01).excess == ""


def test_other_shapes() -> None:
    assert verdict_of(LOGITS[:, :40]).excess == "its logits have the shape [6, 40], not [6, 50]"


def test_one_logit_that_is_far_off() -> None:
    found = LOGITS.copy()
    found[2, 9] += 0.3 * np.ptp(LOGITS[2])
    assert verdict_of(found).excess == "a logit is off by 0.3 of the spread of its row"
    assert verdict_of(found, tolerance=0.31).excess == ""


def test_a_constant_that_is_added_to_a_row_changes_no_cosine() -> None:
    verdict = verdict_of((LOGITS + 0.5).astype(np.float32))
    assert verdict.cosine == pytest.approx(1)


def test_rows_that_point_elsewhere_though_no_logit_is_far_off() -> None:
    # One token leads by far, so that the spread says little of the others.
    expected = RNG.normal(0, 0.05, (4, 50)).astype(np.float32)
    expected[:, 0] = 0.4
    found = (0.9 * expected - RNG.normal(0, 0.05, expected.shape)).astype(np.float32)
    verdict = compare_logits(expected, found, precision="bf16", tolerance=0.45)
    assert verdict.excess == f"the cosine of logits is {verdict.cosine:.3g}"


def test_other_tokens_in_clear_rows() -> None:
    expected = np.zeros((4, 50), np.float32)
    expected[:, :25] = np.linspace(-1, 0.4, 25)
    expected[:, 25:] = np.linspace(-1, 0.4, 25)
    expected[:, 3], expected[:, 4] = 1, 0.75
    found = expected.copy()
    found[:3, 3], found[:3, 4] = 0.88, 0.9
    verdict = compare_logits(expected, found, precision="bf16", tolerance=0.2)
    assert verdict.agreement == 0.25
    assert verdict.excess == "another token is the most probable one in 75% of the clear rows"


def test_rows_without_a_spread() -> None:
    flat = np.full((2, 8), 3, np.float32)
    verdict = compare_logits(flat, flat.copy(), precision="fp32", tolerance=0.01)
    assert (verdict.excess, verdict.agreement, verdict.cosine) == ("", None, 1)


def test_samples_are_the_same_each_time_and_of_the_vocabulary() -> None:
    assert sample_tokens(1000, 4096) == sample_tokens(1000, 4096)
    assert len(sample_tokens(1000, 4096)) == NUM_TOKENS
    assert sample_tokens(3, 2) == sample_tokens(3, 2)
    assert max(sample_tokens(3, 50)) < 3


class Counting:
    """A decoder whose logits follow from a token and its place in the sequence."""

    precision = "bf16"
    block_size = 16

    def __init__(self, change: Change = lambda logits: logits, unit: Unit = Unit.AMX) -> None:
        self.unit, self.change = unit, change
        self.num_blocks, self.is_closed, self.steps = 1, False, list[int]()

    def allocate(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks

    def run(self, step: DecoderStep) -> NDArray[np.float32]:
        step.require_fitting(self.num_blocks, self.block_size)
        self.steps.append(len(step.input_ids))
        rows = step.logits_indices
        seeds = step.input_ids[rows] * 1000 + step.position_ids[rows]
        logits = np.stack([np.random.default_rng(each).normal(0, 1, 40) for each in seeds]).astype(np.float32)
        return self.change(logits)

    def close(self) -> None:
        self.is_closed = True


def test_a_prompt_is_computed_at_once_and_the_last_tokens_one_by_one() -> None:
    decoder = Counting()
    logits = logits_of(decoder, sample_tokens(40, 4096), NO_MEMORY)  # type: ignore[arg-type]
    assert decoder.steps == [NUM_TOKENS - 2, 1, 1]
    assert logits.shape == (16, 40)
    assert logits_of(Counting(), [7], NO_MEMORY).shape == (1, 40)  # type: ignore[arg-type]


class Room:
    """A gate over a folder, and what it is asked to judge."""

    def __init__(self, folder: Path, **parameters: str) -> None:
        self.clock = VirtualClock()
        self.gate = Gate(Machine({}, (), 1), KeptVerdicts(folder))
        self.trusted: list[Counting] = []
        self.seconds, self.error, self.parameters = 0.0, None, parameters

    seconds: float
    error: Exception | None

    def trust(self) -> Trusted | None:
        if self.error is not None:
            raise self.error
        self.clock.advance(round(self.seconds * 1e9))
        self.trusted.append(Counting(unit=Unit.CPU))
        return Trusted(self.trusted[-1], NO_MEMORY)  # type: ignore[arg-type]

    def judge(self, *decoders: Counting, key: str = "key") -> dict[Unit, Verdict]:
        graph = HeldModel(model_of("g (float[2] x) => (float[2] y) { y = Neg(x) }"), {})
        model = JudgedDecoder("m", self.parameters, key, graph, sample_tokens(40, 4096), self.trust)
        given = {each.unit: (Recipe("openvino", each.unit, 1, ()), each, NO_MEMORY) for each in decoders}
        return judge_decoder(self.gate, model, given, self.clock)  # type: ignore[arg-type]


def test_a_unit_that_is_right_and_one_that_is_wrong(tmp_path: Path) -> None:
    room = Room(tmp_path)
    verdicts = room.judge(Counting(), Counting(lambda logits: -logits, Unit.GPU), Counting(unit=Unit.CPU))
    assert verdicts.keys() == {Unit.AMX, Unit.GPU}
    assert verdicts[Unit.AMX].excess == ""
    assert verdicts[Unit.AMX].tolerance == 0.35
    assert verdicts[Unit.GPU].excess.startswith("a logit is off by ")
    assert all(each.is_closed for each in room.trusted)


def test_verdicts_are_kept_and_nothing_is_computed_again(tmp_path: Path) -> None:
    first = Room(tmp_path).judge(Counting(), Counting(lambda logits: logits * np.nan, Unit.GPU))
    room = Room(tmp_path)
    decoder = Counting()
    again = room.judge(decoder, Counting(unit=Unit.GPU))
    assert again == first
    assert all(each.is_kept for each in again.values())
    assert (room.trusted, decoder.steps) == ([], [])
    room.judge(decoder, key="another model")
    assert len(room.trusted) == 1


def test_a_tolerance_of_the_config_judges_again(tmp_path: Path) -> None:
    assert Room(tmp_path).judge(Counting())[Unit.AMX].tolerance == 0.35
    room = Room(tmp_path, unit_tolerance="0.5")
    assert room.judge(Counting())[Unit.AMX].tolerance == 0.5
    assert len(room.trusted) == 1
    with pytest.raises(InvalidArgumentError, match="'unit_tolerance' is 'much'"):
        Room(tmp_path, unit_tolerance="much").judge(Counting())


def test_a_unit_that_fails_is_left_out_and_judged_again_next_time(tmp_path: Path) -> None:
    def fail(_: NDArray[np.float32]) -> NDArray[np.float32]:
        raise InternalError("the driver is broken")

    assert Room(tmp_path).judge(Counting(fail))[Unit.AMX].excess == "its decoder fails: the driver is broken"
    assert Room(tmp_path).judge(Counting())[Unit.AMX].excess == ""


@pytest.mark.parametrize(
    ("seconds", "error", "reason"),
    [
        (MOST_SECONDS + 1, None, "the decoder in fp32 on the CPU took 61 s to compile"),
        (0, InternalError("OpenVINO cannot compile the decoder"), "OpenVINO cannot compile the decoder"),
    ],
)
def test_a_model_that_cannot_be_compared_is_served_and_the_log_says_so(
    seconds: float, error: Exception | None, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    room = Room(tmp_path)
    room.seconds, room.error = seconds, error
    assert room.judge(Counting()) == {}
    assert f"model 'm': its logits are not compared with those of fp32 on the CPU: {reason}" in caplog.text
    assert all(each.is_closed for each in room.trusted)
