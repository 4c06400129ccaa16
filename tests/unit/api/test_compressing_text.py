"""Decoders' checkpoints in fewer bits."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import triune
from support.text_models import write_text_model
from triune.api.compressing.speeds import decoder_speeds
from triune.compression.report import as_json
from triune.core.errors import InvalidArgumentError, NotFoundError, UnsupportedError
from triune.core.units import Unit
from triune.engine.weights import DenseTensor, PackedTensor, open_checkpoint

PAGE_OF_TEXT = "The quick brown fox jumps over the lazy dog, and what it finds there is another matter.\n" * 12


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_text_model(tmp_path / "decoder")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(PAGE_OF_TEXT)
    return path


FORMS = [
    ({"weights": "int8"}, 8, 32),
    ({"weights": "int8", "group": 32, "symmetric": False}, 8, 32),
    ({"weights": "int4", "group": 32}, 4, 32),
    ({"weights": "int4", "group": 32, "symmetric": False}, 4, 32),
    ({"weights": "int4", "group": 128, "method": "gptq"}, 4, 32),
    ({"weights": "int4", "group": 32, "method": "awq"}, 4, 32),
    ({"weights": "int4", "group": 32, "method": "awq-gptq"}, 4, 32),
]


@pytest.mark.parametrize(("options", "bits", "group"), FORMS)
def test_written_weights_are_near(options: Mapping[str, Any], bits: int, group: int, source: Path, text: Path) -> None:
    target = source.with_name("small")
    report = triune.compress(source, target, calibrate=text, force=True, **options).report
    before, after = open_checkpoint(source), open_checkpoint(target, inexact="offsets")
    assert after.config == before.config
    assert after.tokenizer().encode("fox") == before.tokenizer().encode("fox")
    name = "model.layers.0.self_attn.q_proj.weight"
    matrix = after.tensor(name)
    assert isinstance(matrix, PackedTensor)
    assert (matrix.bits, matrix.block_size) == (bits, group)
    table = after.tensor("model.embed_tokens.weight")
    assert isinstance(table, PackedTensor)
    assert table.bits == 8
    if "method" not in options:
        # No weight is further from its own than half a step, but for what FP16 rounds of scales and offsets.
        steps = np.repeat(matrix.scales.astype(np.float32), group, axis=1)
        error = np.abs(matrix.dequantize() - before.tensor(name).dequantize())
        assert (error <= steps * (0.5 + 2.0 ** (bits - 10))).all()
    assert report.text is not None
    assert report.text.perplexity_before > 1
    # Of these 8 small matrices in 4 bits the scales take much.
    assert report.target_bytes < 0.5 * report.source_bytes


def test_what_was_written_is_what_was_compared(source: Path, text: Path) -> None:
    """The engine answers by the weights that the report is about."""
    target = source.with_name("small-0.5B")
    report = triune.compress(source, target, weights="int8", calibrate=text).report
    assert report.agreement >= 0.9
    with (
        triune.Engine(target, "cpu", precision="fp32") as engine,
        triune.Engine(source, "cpu", precision="fp32") as one,
    ):
        prompt = "The quick brown"
        assert engine.generate(prompt, max_tokens=1).text == one.generate(prompt, max_tokens=1).text


def test_config_names_modules_of_other_sizes(source: Path, text: Path) -> None:
    target = source.with_name("small")
    triune.compress(source, target, weights="int4", group=32, calibrate=text, force=True)
    packing = json.loads((target / "config.json").read_text())["quantization"]
    assert (packing["bits"], packing["group_size"]) == (4, 32)
    assert packing["model.embed_tokens"] == {"bits": 8, "group_size": 32}
    # 32 does not divide 48: a scale for each channel.
    assert packing["model.layers.1.mlp.down_proj"] == {"bits": 4, "group_size": 48}


@pytest.mark.parametrize("weights", ["fp16", "bf16"])
def test_floats_of_16_bits(weights: Any, source: Path, text: Path) -> None:
    target = source.with_name("small")
    report = triune.compress(source, target, weights=weights, calibrate=text).report
    matrix = open_checkpoint(target).tensor("model.layers.0.self_attn.q_proj.weight")
    assert isinstance(matrix, DenseTensor)
    assert matrix.form == {"fp16": "F16", "bf16": "BF16"}[weights]
    assert "quantization" not in json.loads((target / "config.json").read_text())
    assert report.agreement > 0.97


def test_search_returns_few(source: Path, text: Path) -> None:
    target = source.with_name("small")
    plain = triune.compress(source, target, weights="int4", group=32, calibrate=text, force=True).report
    assert plain.agreement < 0.99
    kept = triune.compress(source, target, weights="int4", group=32, calibrate=text, keep_accuracy=0.99).report
    assert kept.agreement >= 0.99
    forms = [each.form for each in kept.layers]
    assert len(set(forms)) > 1
    returned = [each for each in kept.layers if each.note.startswith("went back to ")]
    assert returned
    # The report has the form that was written.
    assert all(each.note.startswith(f"went back to {each.form}") for each in returned)


def test_best_keeps_what_agrees_best(source: Path, text: Path) -> None:
    target = source.with_name("small")
    report = triune.compress(source, target, weights="int4", group=32, method="best", calibrate=text, force=True).report
    assert [each.name for each in report.methods] == ["nearest", "gptq", "awq", "awq-gptq"]
    (kept,) = (each for each in report.methods if each.is_kept)
    assert kept.agreement == max(each.agreement for each in report.methods)
    assert kept.name in report.form
    # What was written, whose norms are not those of the method that was tried last.
    assert report.agreement == pytest.approx(kept.agreement, rel=1e-3)


def test_packed_sources_and_built_in_text(source: Path) -> None:
    """A compressed directory is itself a source."""
    first, second = source.with_name("first"), source.with_name("second")
    triune.compress(source, first, weights="int8", group=32)
    report = triune.compress(first, second, weights="int8", group=32).report
    assert report.is_made_up
    one, other = (open_checkpoint(each).tensor("model.norm.weight").dequantize() for each in (first, second))
    assert np.array_equal(one, other)
    assert any("no smaller" in note for note in report.notes)


WRONG = [
    ({"weights": "palette"}, "not stored as palette"),
    ({"weights": "int8", "activations": "int8"}, "activations as floats"),
    ({"weights": "int8", "sparsity": 0.5}, "no zeros"),
    ({"weights": "fp16", "group": 32}, "no scales"),
    ({"weights": "fp16", "method": "gptq"}, "finds levels of integers"),
    ({}, "name a form"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_wrong_options(options: Mapping[str, Any], message: str, source: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        triune.compress(source, source.with_name("small"), **options)
    assert not source.with_name("small").exists()


def test_wrong_texts_and_targets(source: Path, tmp_path: Path) -> None:
    small, text = source.with_name("small"), tmp_path / "text.txt"
    with pytest.raises(NotFoundError, match="no text"):
        triune.compress(source, small, weights="int8", calibrate=text)
    text.write_text("too short")
    with pytest.raises(InvalidArgumentError, match=r"has \d+ tokens"):
        triune.compress(source, small, weights="int8", calibrate=text)
    text.write_bytes(b"\xff\xfe" * 200)
    with pytest.raises(InvalidArgumentError, match="no text in UTF-8"):
        triune.compress(source, small, weights="int8", calibrate=text)
    with pytest.raises(InvalidArgumentError, match=r"without \.onnx"):
        triune.compress(source, tmp_path / "small.onnx", weights="int8")
    with pytest.raises(InvalidArgumentError, match="replace the source"):
        triune.compress(source, source, weights="int8")
    assert not small.exists()


def test_weights_that_are_no_numbers(tmp_path: Path, text: Path) -> None:
    source = write_text_model(tmp_path / "broken", fill=float("nan"))
    with pytest.raises(InvalidArgumentError, match="NaN or infinities"):
        triune.compress(source, tmp_path / "small", weights="int8", calibrate=text)


def test_layers_of_zeros(tmp_path: Path, text: Path) -> None:
    """Zeros stay zeros: all tokens stay equally probable."""
    source = write_text_model(tmp_path / "zeros", fill=0.0)
    for method in ("nearest", "gptq", "awq", "awq-gptq"):
        report = triune.compress(
            source, tmp_path / "small", weights="int4", group=32, method=method, calibrate=text
        ).report
        assert report.agreement == 1
        assert not open_checkpoint(tmp_path / "small").tensor("model.layers.0.mlp.up_proj.weight").dequantize().any()


def test_too_little_agreement_writes_nothing(source: Path, text: Path) -> None:
    with pytest.raises(UnsupportedError, match="nothing is written"):
        triune.compress(source, source.with_name("small"), weights="int4", group=32, calibrate=text)
    assert not source.with_name("small").exists()


def test_a_full_disk_is_named_and_leaves_nothing(source: Path, text: Path, tmp_path: Path) -> None:
    """The limit stands for the disk: the library that writes tensors meets it, too."""
    script = """
import resource, signal, sys
import triune
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, 6_000))
try:
    triune.compress(sys.argv[1], sys.argv[2], weights="int8", calibrate=sys.argv[3], force=True)
except triune.InvalidArgumentError as error:
    print(error)
"""
    target = tmp_path / "full"
    command = [sys.executable, "-c", script, str(source), str(target), str(text)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "cannot be" in found.stdout, (found.stdout, found.stderr)
    assert "make room" in found.stdout
    assert sorted(each.name for each in tmp_path.iterdir()) == ["decoder", "text.txt"]


def test_reports_have_speed_and_joules_of_a_token(
    source: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triune.api.compressing.text.units_here", lambda: [Unit.CPU])
    target = source.with_name("small")
    report = triune.compress(source, target, weights="int8", calibrate=text, force=True, measure=True).report
    assert len(report.before) == len(report.after) == 1
    for each in (*report.before, *report.after):
        assert each.latency_ms is not None, each.unavailable
        assert each.rows_per_second is not None
        assert each.latency_ms > 0
        assert each.rows_per_second > 0
        assert (each.unit, each.batch) == ("cpu", 8)
        assert (each.joules_per_row is None) == bool(each.unavailable)
    (unit,) = as_json(report)["units"]
    assert unit["before"]["latency_ms"] == report.before[0].latency_ms
    assert not triune.compress(source, target, weights="int8", calibrate=text, force=True).report.before


def test_a_decoder_that_a_unit_does_not_run_says_why(source: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    one, other = decoder_speeds([source, tmp_path / "none"], Unit.CPU, "fox", 96)
    assert one.latency_ms is not None
    assert other.latency_ms is None
    assert "none" in other.unavailable
