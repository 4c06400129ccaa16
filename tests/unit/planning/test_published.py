"""Published architectures: their arithmetic and weights are those that papers and checkpoints name."""

import csv
from pathlib import Path

import pytest

from triune.core.units import Unit
from triune.planning.constants import constants
from triune.planning.published import decoders, diffusion, encoders, kernels, vision
from triune.planning.published.measurements import read_measurements
from triune.planning.published.predict import Predictor
from triune.planning.published.sketch import Sketch


def work_of(net: Sketch) -> tuple[float, float]:
    """Thousand millions of multiply-adds, millions of weights."""
    return sum(op.flops for op in net.ops if op.is_product) / 2e9, sum(op.weights for op in net.ops) / 1e6


@pytest.mark.parametrize(
    ("net", "multiply_adds", "weights"),
    [
        # torchvision's documentation of its models: 4.09 and 0.30 GFLOPS of multiply-adds, 25.6 and 3.5 M parameters.
        (vision.resnet_50(), 4.09, 25.6),
        (vision.mobilenet_v2(), 0.30, 3.5),
        # arXiv:2010.11929: 86 M; 17.6 thousand millions of multiply-adds by torchvision.
        (vision.vit_base_16(), 17.6, 86.6),
        # arXiv:2206.02680, table 2: 1.8 and 4.9.
        (vision.mobilevit_v2(), 1.84, 4.9),
        # Without embeddings: 43 of DistilBERT's 66 M parameters.
        (encoders.bert(128, layers=6), 5.6, 42.5),
        # arXiv:2112.10752: 860 M parameters; 400 thousand millions of multiply-adds for one latent of 64x64.
        (diffusion.denoiser(1), 400, 850),
        (decoders.decoder_step("Llama-2-7B", 1, 0), 6.6, 6607),
        (decoders.decoder_step("Llama-3-8B", 1, 0), 7.5, 7505),
        (decoders.decoder_step("Llama-2-70B", 1, 0), 68.7, 68714),
        (decoders.decoder_step("GPT-2", 1, 0), 0.124, 124),
    ],
)
def test_work(net: Sketch, multiply_adds: float, weights: float) -> None:
    assert work_of(net) == pytest.approx((multiply_adds, weights), rel=0.04)


def test_whisper_encoders_have_the_published_weights() -> None:
    # arXiv:2212.04356 names all parameters; these are of the encoders in OpenAI's checkpoints.
    for name, millions in (("tiny", 7.6), ("base", 19.8), ("small", 87), ("medium", 306), ("large-v2", 635)):
        assert work_of(encoders.whisper_encoder(name))[1] == pytest.approx(millions, rel=0.02)


def test_a_step_reads_experts_that_its_tokens_use() -> None:
    one, many = (decoders.decoder_step("gpt-oss-20b", tokens, 0) for tokens in (1, 512))
    assert work_of(one)[1] == pytest.approx(3600, rel=0.02)
    # 21 thousand million parameters, of which 1.16 are embeddings that are looked up.
    assert work_of(many)[1] == pytest.approx(20_000, rel=0.04)


def test_a_stack_has_its_layers() -> None:
    # maderix/ANE: 128 convolutions of 512 channels over 64x64 are 275 thousand million operations (18.6 TOPS, 14.8 ms).
    assert work_of(kernels.conv_stack(128, 512, 4096))[0] * 2 == pytest.approx(18.6 * 14.8, rel=0.01)


ROWS = [
    ("ResNet50", "image classification", "iPhone 14 Pro", "A16", "all", "W4-palettized(LUT)", "latency", "1.41", "ms"),
    ("Llama-2-7B", "tg128", "Mac", "M1 Pro (14c GPU, 200 GB/s)", "GPU", "Q4_0", "decode", "35.52", "tok/s"),
    ("Llama-2-7B", "pp512", "Mac", "M1 Pro (14c GPU, 200 GB/s)", "GPU", "Q4_0", "prefill", "232.55", "tok/s"),
    ("matmul 2048^3", "microbench", "Mac", "M4", "ANE", "fp16", "throughput", "5.7", "TFLOPS"),
    ("ViT-B/16", "image classification", "Mac", "M2 (Pro, H14g)", "GPU", "fp16", "energy", "714.3", "mJ/inference"),
    ("GEMM K=4096 compute", "microbench", "Mac", "M1 Max (h13g)", "GPU", "fp16", "efficiency", "192", "GFLOP/s/W"),
    ("Llama-2-7B", "decode", "Mac", "M1 Max", "ANE", "W4", "decode", "5", "tok/s"),
    ("Llama-2-7B", "decode", "Mac", "M1 Max", "ANE", "W4", "ane_power", "3.6", "W"),
    ("4-conv body", "partition cost", "Phone", "A19 Pro", "ANE", "fp16", "latency", "0.46", "ms"),
    ("relu", "Core ML segmenter ESTIMATE", "Mac", "M4", "ANE", "fp16", "estimated_runtime", "2.6", "us"),
    ("ResNet50", "image classification", "Mac", "M99", "ANE", "fp16", "latency", "1", "ms"),
]
COLUMNS = ("model", "task", "device", "chip", "compute_unit", "precision", "metric", "value", "unit", "source", "kind")


def test_rows_become_times_and_energies(tmp_path: Path) -> None:
    path = tmp_path / "published.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([*row, "here", "independent"] for row in ROWS)
        writer.writerow([*ROWS[0], "here", "claimed"])
    found, left = read_measurements(path)
    assert [(each.row, each.group, each.kind, each.unit) for each in found] == [
        (2, "convolution", "latency", Unit.ANE),
        (3, "decode", "latency", Unit.GPU),
        (4, "prefill", "latency", Unit.GPU),
        (5, "kernel", "latency", Unit.ANE),
        (6, "encoder", "joules", Unit.GPU),
        (7, "kernel", "joules", Unit.GPU),
        (8, "decode", "latency", Unit.ANE),
        (9, "decode", "joules", Unit.ANE),
    ]
    values = [each.value for each in found]
    assert values == pytest.approx(
        [1.41, 1e3 / 35.52, 512e3 / 232.55, 2 * 2048**3 / 5.7e9, 0.7143, 2 * 256 * 4096**2 / 192e9, 200, 0.72]
    )
    assert (found[1].num_gpu_cores, found[1].gb_per_s, found[1].weight_bits) == (14, 200, 4.5)
    assert found[0].weight_bits == 4
    assert [(each.row, each.reason) for each in left] == [
        (10, "the shapes of the model, or its input, are not known"),
        (11, "an estimate of Core ML's, not a measurement"),
        (12, "the chip is not one of the table of chips"),
        (13, "a claim, not a measurement"),
    ]
    predictor = Predictor(found)
    # Whatever the constants: within a factor of ten of what was measured.
    for each in found:
        assert 0.1 < predictor.predict(each, constants()) / each.value < 10


def test_rows_are_held_out_by_model_and_chip(tmp_path: Path) -> None:
    path = tmp_path / "published.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for unit in ("ANE", "GPU"):
            writer.writerow([*ROWS[4][:4], unit, *ROWS[4][5:], "here", "independent"])
    found, _ = read_measurements(path)
    assert len({each.is_held_out for each in found}) == 1
