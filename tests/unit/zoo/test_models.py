"""The zoo's other models: right answers to known questions, by ONNX Runtime directly."""

import io
import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from triune.core.errors import InvalidArgumentError
from triune.zoo import efficientnet_lite0, magika, rapidocr_rec, silero_vad
from triune.zoo.packages import PackageCache
from triune.zoo.samples import read_picture
from triune.zoo.torch_checkpoint import read_checkpoint

Floats = NDArray[np.float32]


def session(models: Path, name: str) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(models / name / "1" / "model.onnx", providers=["CPUExecutionProvider"])


def imagenet(content: bytes) -> Floats:
    """ImageNet's usual preparation: shorter side to 256, the middle 224 x 224, normalized."""
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    scale = 256 / min(picture.size)
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC)
    left, top = (picture.width - 224) // 2, (picture.height - 224) // 2
    values = np.asarray(picture.crop((left, top, left + 224, top + 224)), np.float32) / 255
    normalized = (values - np.array(efficientnet_lite0.MEAN)) / np.array(efficientnet_lite0.DEVIATION)
    return normalized.transpose(2, 0, 1)[None].astype(np.float32)


@pytest.mark.parametrize(
    ("picture", "label", "probability"), [("chelsea", "Egyptian cat", 0.381), ("coffee", "espresso", 0.779)]
)
def test_efficientnet_names_pictures(
    models: Path, packages: PackageCache, picture: str, label: str, probability: float
) -> None:
    image = imagenet(read_picture(picture, packages))
    (row,) = session(models, "efficientnet_lite0").run(["probabilities"], {"image": image})[0]
    labels = (models / "efficientnet_lite0" / "labels.txt").read_text().splitlines()
    assert len(labels) == 1000
    assert labels[int(row.argmax())] == label
    assert row.max() == pytest.approx(probability, abs=0.005)
    assert row.sum() == pytest.approx(1, abs=1e-5)


def test_efficientnet_folds_what_pytorch_normalizes(models: Path, packages: PackageCache) -> None:
    """The first two convolutions in fp64, with their batch normalizations as the state dict has them, unfolded."""
    (content,) = packages.read(efficientnet_lite0.PACKAGE, [efficientnet_lite0.WEIGHTS])
    weights = read_checkpoint(content)
    model = onnx.load(models / "efficientnet_lite0" / "1" / "model.onnx")
    second = [node for node in model.graph.node if node.op_type == "Clip"][1].output[0]
    model.graph.output.append(onnx.helper.make_tensor_value_info(second, onnx.TensorProto.FLOAT, None))
    image = np.random.default_rng(3).standard_normal((2, 3, 224, 224), np.float32)
    runner = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = runner.run([second], {"image": image})

    def norm(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        gamma, beta, mean, variance = (
            weights[f"{name}.{each}"].astype(np.float64)[:, None, None]
            for each in ("weight", "bias", "running_mean", "running_var")
        )
        return np.clip((x - mean) / np.sqrt(variance + 1e-3) * gamma + beta, 0, 6)

    # Stride 2 on 224: one row and one column of zeros, below and on the right only.
    padded = np.pad(image.astype(np.float64), ((0, 0), (0, 0), (0, 1), (0, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))[:, :, ::2, ::2]
    stem = norm(np.einsum("bchwij,ocij->bohw", windows, weights["_conv_stem.weight"]), "_bn0")
    padded = np.pad(stem, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    kernel = weights["_blocks.0._depthwise_conv.weight"][:, 0]
    expected = norm(np.einsum("bchwij,cij->bchw", windows, kernel), "_blocks.0._bn1")
    assert found.shape == expected.shape == (2, 32, 112, 112)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def vowels() -> Floats:
    """A second of silence, vowels for 1.5 s (harmonics of 120 Hz under three formants), a second of silence."""
    formants = {"a": (730, 1090, 2440), "i": (270, 2290, 3010), "u": (300, 870, 2240)}
    time = np.arange(4000) / 16000
    phase = np.cumsum(120 * (1 + 0.05 * np.sin(2 * np.pi * 3 * time))) / 16000
    fade = np.minimum(1, np.minimum(np.arange(4000), np.arange(4000)[::-1]) / 800)
    parts = [np.zeros(16000)]
    for vowel in "aiuai":
        sound = np.zeros(4000)
        for harmonic in range(1, 34):
            gains = (
                weight / (1 + ((120 * harmonic - centre) / 100) ** 2)
                for centre, weight in zip(formants[vowel], (1, 0.4, 0.2), strict=True)
            )
            sound += math.fsum(gains) * np.sin(2 * np.pi * harmonic * phase)
        parts += [sound * fade, np.zeros(800)]
    sound = np.concatenate([*parts, np.zeros(16000)])
    return (0.3 * sound / np.abs(sound).max()).astype(np.float32)


def speech(models: Path, samples: Floats) -> Floats:
    runner = session(models, "silero_vad")
    state = np.zeros((2, 1, 128), np.float32)
    context, new = silero_vad.NUM_CONTEXT_SAMPLES, silero_vad.NUM_SAMPLES
    samples = np.pad(samples, (context, 0))
    found: list[float] = []
    for begin in range(0, len(samples) - context - new + 1, new):
        window = samples[None, begin : begin + context + new]
        feed = {"input": window, "state": state, "sr": np.array([silero_vad.SAMPLE_RATE])}
        probability, state = runner.run(["output", "stateN"], feed)
        found.append(probability.item())
    return np.array(found, np.float32)


def test_silero_hears_speech_and_nothing_else(models: Path) -> None:
    found = speech(models, vowels())
    assert found[:30].max() < 0.1
    assert (found[32:78] > 0.5).mean() > 0.8
    assert found[-20:].max() < 0.1
    noise = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    assert speech(models, noise).max() < 0.2


def test_silero_without_its_rate_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="no input 'sr'"):
        silero_vad.with_rate_as_vector(onnx.ModelProto().SerializeToString())


def test_magika_knows_files(models: Path) -> None:
    labels = (models / "magika" / "labels.txt").read_text().splitlines()
    root = Path(__file__).parents[3]
    contents = {
        "python": (root / "src" / "triune" / "zoo" / "packages.py").read_bytes(),
        "markdown": (root / "README.md").read_bytes(),
        "onnx": (models / "magika" / "1" / "model.onnx").read_bytes(),
        "json": b'{"name": "triune", "list": [1, 2, 3], "deep": {"flag": true, "nothing": null}}\n' * 3,
    }
    rows: list[list[int]] = []
    for content in contents.values():
        first, last = list(content[: magika.NUM_BYTES]), list(content.strip()[-magika.NUM_BYTES :])
        filler = [magika.PADDING]
        rows.append(first + filler * (magika.NUM_BYTES - len(first)) + filler * (magika.NUM_BYTES - len(last)) + last)
    (scores,) = session(models, "magika").run(["target_label"], {"bytes": np.array(rows, np.int32)})
    found = [labels[index] for index in scores.argmax(-1)]
    assert found[:3] == list(contents)[:3]
    assert found[3] in ("json", "jsonl")
    assert scores.shape == (4, len(labels))


def test_rapidocr_reads_a_line(models: Path) -> None:
    characters = (models / "rapidocr_rec" / "characters.txt").read_text().split("\n")[:-1]
    assert len(characters) == 6625
    assert characters[0] == ""
    assert characters[-1] == " "
    image = Image.new("RGB", (320, 48), "white")
    ImageDraw.Draw(image).text((6, 4), "Triune serves 2026", fill="black", font=ImageFont.load_default(32))
    pixels = np.asarray(image, np.float32)[:, :, ::-1] / 127.5 - 1
    (steps,) = session(models, "rapidocr_rec").run(None, {"x": np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])})[
        0
    ]
    best = steps.argmax(-1)
    kept = [index for step, index in enumerate(best) if step == 0 or index != best[step - 1]]
    assert "".join(characters[index] for index in kept) == "Triune serves 2026"


def test_rapidocr_without_characters_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="no entry 'character'"):
        rapidocr_rec.read_characters(onnx.ModelProto().SerializeToString())


@pytest.mark.parametrize(
    ("model", "dtype", "low", "high"), [("simple", np.int32, -(2**31), 2**31), ("simple_int8", np.int8, -128, 128)]
)
def test_add_and_subtract(models: Path, model: str, dtype: type, low: int, high: int) -> None:
    rng = np.random.default_rng(1)
    first, second = (rng.integers(low, high, (3, 16), np.int64).astype(dtype) for _ in range(2))
    total, difference = session(models, model).run(["OUTPUT0", "OUTPUT1"], {"INPUT0": first, "INPUT1": second})
    assert total.dtype == dtype
    np.testing.assert_array_equal(total, first + second)
    np.testing.assert_array_equal(difference, first - second)


def test_add_and_subtract_strings(models: Path) -> None:
    first, second = np.arange(-8, 8)[None], np.full((1, 16), 5)
    feed = {name: value.astype(str).astype(object) for name, value in (("INPUT0", first), ("INPUT1", second))}
    total, difference = session(models, "simple_string").run(["OUTPUT0", "OUTPUT1"], feed)
    assert total.tolist() == [[str(value + 5) for value in range(-8, 8)]]
    assert difference.tolist() == [[str(value - 5) for value in range(-8, 8)]]


def test_identities(models: Path) -> None:
    words = np.array([["a", "", "longer than the others"]], object)
    assert session(models, "simple_identity").run(["OUTPUT0"], {"INPUT0": words})[0].tolist() == words.tolist()
    values = np.arange(16, dtype=np.float32)
    np.testing.assert_array_equal(session(models, "identity_fp32").run(["OUTPUT0"], {"INPUT0": values})[0], values)
