"""Transformers that generate text or read speech pass the gate before a unit serves them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from contract.architectures.t5 import CASES as T5_CASES
from contract.architectures.t5 import write_t5
from support.text_models import write_text_model
from triune.backends.attempt import Attempt
from triune.backends.machine_backend import Shared
from triune.backends.transformer import build as building
from triune.backends.transformer import units
from triune.backends.transformer.backend import TransformerBackend
from triune.backends.transformer.build import TransformerBuild
from triune.config.configure import read_source
from triune.config.stamps import stamp
from triune.core.clock import MonotonicClock
from triune.core.decoder import DecoderExecutable, DecoderStep
from triune.core.errors import UnsupportedError
from triune.core.units import Unit
from triune.engine.servable import TextServable
from triune.frontends.kserve.descriptions import statistics_with_energy
from triune.repository.repository import Repository
from triune.repository.settings import RepositorySettings
from triune.runtimes import missing
from triune.runtimes.machine import Machine, this_machine
from triune.scheduling.models import Models

pytest.importorskip("openvino")

if missing().get("mlx"):
    pytest.skip("MLX computes what is judged here", allow_module_level=True)

NO_MODELS: Models = None  # type: ignore[assignment]
Change = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@pytest.fixture(scope="module")
def machine() -> Machine:
    return this_machine()


def build(machine: Machine, root: Path, case: str = "", **parameters: str) -> TransformerBuild:
    """A small model as a checkpoint, or a case of T5, and its build."""
    folder = root / "m"
    if not folder.exists() and case:
        write_t5(case, folder / "1")
    elif not folder.exists():
        write_text_model(folder / "1")
    lines = (
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n' for key, value in parameters.items()
    )
    (folder / "config.pbtxt").write_text("".join(lines))
    source = read_source("m", folder, stamp(folder), supports=lambda _: TransformerBackend.supports)
    shared = Shared(verdicts=root / "gates")
    return TransformerBackend(machine, MonotonicClock(), shared=shared).build(source, 1, None, Attempt())


class Broken:
    """A decoder whose logits are changed."""

    def __init__(self, decoder: DecoderExecutable, change: Change) -> None:
        self._decoder, self._change = decoder, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def run(self, step: DecoderStep) -> NDArray[np.float32]:
        return self._change(np.array(self._decoder.run(step)))


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[[Change], None]:
    """Lets MLX's decoders give other logits."""
    load: Any = building.load_decoder

    def break_it(change: Change) -> None:
        def load_broken(runtime: str) -> Any:
            def break_decoder(*given: Any, **options: Any) -> Broken:
                return Broken(load(runtime)(*given, **options), change)

            return break_decoder if runtime == "mlx" else load(runtime)

        monkeypatch.setattr(building, "load_decoder", load_broken)

    return break_it


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
async def test_a_unit_that_is_right_serves_and_says_how_far_it_is(
    machine: Machine, tmp_path: Path, precision: str
) -> None:
    made = build(machine, tmp_path, units="gpu", precision=precision)
    verdict = made.verdicts[Unit.GPU]
    assert (verdict.excess, verdict.precision, verdict.is_kept) == ("", precision, False)
    assert verdict.relative < verdict.tolerance / 2
    servable = TransformerBackend(machine, MonotonicClock()).assemble(made, NO_MODELS)
    assert isinstance(servable, TextServable)
    assert servable.statistics.verdicts == {Unit.GPU: verdict}
    await servable.close()


@pytest.mark.parametrize("case", T5_CASES)
def test_a_model_with_an_encoder_is_compared_by_what_both_read(machine: Machine, tmp_path: Path, case: str) -> None:
    made = build(machine, tmp_path, case, units="gpu", precision="fp32")
    made.close()
    verdict = made.verdicts[Unit.GPU]
    assert verdict.excess == ""
    assert verdict.relative < verdict.tolerance / 2


def test_a_second_start_compares_nothing(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build(machine, tmp_path, units="gpu", precision="fp32")
    first.close()

    def fail(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(units, "trusted_decoder", fail)
    again = build(machine, tmp_path, units="gpu", precision="fp32")
    again.close()
    assert again.verdicts == first.verdicts
    assert again.verdicts[Unit.GPU].is_kept


CHANGES: dict[str, Change] = {
    "NaN": lambda logits: logits * np.float32(np.nan),
    "the negative": lambda logits: -logits,
    "of other tokens": lambda logits: np.roll(logits, 1, axis=-1),
    "0": np.zeros_like,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_broken_runtime_leaves_the_unit_out_with_the_reason(
    machine: Machine,
    tmp_path: Path,
    broken: Callable[[Change], None],
    change: Change,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken(change)
    made = build(machine, tmp_path, units="gpu,cpu", precision="bf16")
    made.close()
    assert made.units == (Unit.CPU,)
    reason = made.verdicts[Unit.GPU].reason
    assert reason
    assert f"its answers on 'gpu' are not those of 'cpu': {reason}; " in made.shortfall
    assert f"model 'm' is not served on gpu: its answers on 'gpu' are not those of 'cpu': {reason}" in caplog.text


def test_a_model_without_another_unit_is_not_served(
    machine: Machine, tmp_path: Path, broken: Callable[[Change], None]
) -> None:
    broken(CHANGES["NaN"])
    with pytest.raises(UnsupportedError, match="its answers on 'gpu' are not those of 'cpu': its logits are NaN"):
        build(machine, tmp_path, units="gpu")


def test_a_config_may_allow_more(machine: Machine, tmp_path: Path, broken: Callable[[Change], None]) -> None:
    broken(lambda logits: (logits * 1.2).astype(np.float32))
    with pytest.raises(UnsupportedError, match="a logit is off by "):
        build(machine, tmp_path, units="gpu", precision="fp32")
    made = build(machine, tmp_path, units="gpu", precision="fp32", unit_tolerance="1")
    made.close()
    assert made.verdicts[Unit.GPU].tolerance == 1


async def test_what_was_found_is_in_the_statistics_and_in_the_check_of_a_later_start(
    machine: Machine, tmp_path: Path
) -> None:
    write_text_model(tmp_path / "models" / "m" / "1")
    config = 'parameters { key: "units" value { string_value: "cpu,gpu" } }'
    (tmp_path / "models" / "m" / "config.pbtxt").write_text(config)

    def repository() -> Repository:
        settings, shared = RepositorySettings((tmp_path / "models",)), Shared(verdicts=tmp_path / "gates")
        return Repository(settings, machine, MonotonicClock(), shared=shared)

    (before,) = repository().check()
    assert before.verdicts == {}
    served = repository()
    await served.open()
    (gate,) = statistics_with_energy([served.get("m")])["model_stats"][0]["triune"]["gate"]
    assert (gate["unit"], gate["is_served"], gate["is_kept"]) == ("gpu", True, False)
    assert gate["logits_cosine"] > 0.9
    await served.close()
    (after,) = repository().check()
    assert after.verdicts.keys() == {Unit.GPU}
