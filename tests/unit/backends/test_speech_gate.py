"""A model that reads speech passes the gate before a unit serves it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from support.speech import write_whisper
from triune.backends.attempt import Attempt
from triune.backends.machine_backend import Shared
from triune.backends.speech import build as building
from triune.backends.speech.backend import SpeechBackend
from triune.backends.speech.build import SpeechBuild
from triune.config.configure import read_source
from triune.config.stamps import stamp
from triune.core.clock import MonotonicClock
from triune.core.decoder import DecoderStep
from triune.core.errors import UnsupportedError
from triune.core.units import Presence, Unit
from triune.runtimes.machine import Machine, this_machine
from triune.zoo.packages import PackageCache

pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def machine() -> Machine:
    machine = this_machine()
    status = machine.status(Unit.AMX)
    if status.presence is not Presence.PRESENT:
        pytest.skip(status.reason)
    return machine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, packages: PackageCache) -> Path:
    return write_whisper(tmp_path_factory.mktemp("speech"), packages)


def build(machine: Machine, folder: Path, gates: Path, unit: str) -> SpeechBuild:
    (folder / "config.pbtxt").write_text(f'parameters {{ key: "units" value {{ string_value: "{unit}" }} }}')
    source = read_source("whisper", folder, stamp(folder), supports=lambda _: SpeechBackend.supports)
    backend = SpeechBackend(machine, MonotonicClock(), shared=Shared(verdicts=gates))
    made = backend.build(source, 1, None, Attempt())
    made.close()
    return made


def test_a_unit_that_is_right_is_compared_once(
    machine: Machine, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = build(machine, folder, tmp_path, "amx").verdicts[Unit.AMX]
    assert (verdict.excess, verdict.precision, verdict.is_kept) == ("", "bf16", False)
    assert 0 < verdict.relative < verdict.tolerance

    def fail(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(building, "trusted_decoder", fail)
    again = build(machine, folder, tmp_path, "amx").verdicts[Unit.AMX]
    assert again == verdict
    assert again.is_kept
    assert build(machine, folder, tmp_path, "cpu").verdicts == {}


class Deaf:
    """A decoder that reads zeros in place of what the encoder gave."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def run(self, step: DecoderStep) -> NDArray[np.float32]:
        for each in step.memory.values():
            each[...] = 0
        return self._decoder.run(step)


def test_a_unit_whose_decoder_does_not_hear_is_refused(
    machine: Machine, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load: Any = building.load_decoder

    def load_deaf(runtime: str) -> Any:
        def deaf(*given: Any, **options: Any) -> Deaf:
            return Deaf(load(runtime)(*given, **options))

        return deaf

    monkeypatch.setattr(building, "load_decoder", load_deaf)
    with pytest.raises(UnsupportedError, match="its answers on 'amx' are not those of 'cpu': .* off by "):
        build(machine, folder, tmp_path, "amx")
