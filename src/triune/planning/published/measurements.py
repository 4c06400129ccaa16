"""Published measurements in the terms of the cost model: the time of a model on a unit of a chip.

Reads the table `published.csv` (columns model, task, device, chip, compute_unit, precision, metric, value, unit,
source, kind). A row is left out, with the reason, if it has no time or energy, or if the shapes of its model are not
known.
"""

import csv
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from triune.core.units import Unit
from triune.hardware.chip import Chip
from triune.hardware.chips import find_chip
from triune.planning.op import Op
from triune.planning.published import diffusion, encoders, kernels, vision
from triune.planning.published.decoders import DECODERS, decoder_step
from triune.planning.published.encoders import whisper_encoder
from triune.planning.published.sketch import Sketch

Part = tuple[Sequence[Op], float]
"""The operations of a segment, and how often the segment runs."""

_SEED = 31
"""The seed that decides which rows are held out. It is the smallest one that holds out 30 to 37% of all rows and 15 to
55% of each class, and was chosen before anything was fitted.
"""


@dataclass(frozen=True, slots=True)
class Measurement:
    """A published time or energy.

    Attributes:
        row: the number of its line in the table, from 2 on; line 1 has the names of the columns.
        label: model, chip, unit and precision, as a text for users.
        group: "convolution", "encoder", "diffusion", "decode", "prefill" or "kernel".
        kind: "latency" or "joules".
        parts: the operations that ran.
        unit: the unit that ran it; AMX stands for the CPU with Accelerate.
        chip: the chip.
        num_gpu_cores: the number of GPU cores of the measured machine; None means the chip's largest configuration.
        gb_per_s: the memory bandwidth of the measured machine; None means the chip's largest configuration.
        weight_bits: the bits of a stored weight; None for fp16.
        activation_bits: the bits of an activation, 8 or 16.
        value: the measured milliseconds or joules.
        key: model and chip, by which rows are held out.
        source: where it was published.
    """

    row: int
    label: str
    group: str
    kind: str
    parts: tuple[Part, ...]
    unit: Unit
    chip: Chip
    num_gpu_cores: float | None
    gb_per_s: float | None
    weight_bits: float | None
    activation_bits: float
    value: float
    key: str
    source: str

    @property
    def third(self) -> int:
        """To which third of all rows this one belongs: 0, 1 or 2. Rows of one model on one chip belong to the same
        third.
        """
        return int(hashlib.sha256(f"triune planner {_SEED}:{self.key}".encode()).hexdigest(), 16) % 3

    @property
    def is_held_out(self) -> bool:
        """Whether this measurement is in the third of all that Triune's constants are not fitted to."""
        return self.third == 0


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A row that is not compared, and why."""

    row: int
    label: str
    reason: str


def read_measurements(path: Path) -> tuple[list[Measurement], list[LeftOut]]:
    """Read the table `published.csv`. Returns its measurements, and the rows that are left out.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found: list[Measurement] = []
    left: list[LeftOut] = []
    for number, row in enumerate(rows, start=2):
        each = _measurement(number, row, rows)
        if isinstance(each, str):
            left.append(LeftOut(number, f"{row['model']}, {row['chip']}, {row['metric']}", each))
        else:
            found.append(each)
    return found, left


def _measurement(number: int, row: Mapping[str, str], rows: Sequence[Mapping[str, str]]) -> Measurement | str:
    if row["kind"] == "claimed":
        return "a claim, not a measurement"
    if "ESTIMATE" in row["task"] or row["metric"] == "cost_constant":
        return "an estimate of Core ML's, not a measurement"
    if "mlx_lm prefill suspect" in row["source"] and "mlx_lm" in row["compute_unit"] and row["metric"] == "prefill":
        return "its source calls it suspect"
    chip, cores, bandwidth = _chip(row["chip"])
    if chip is None:
        return "the chip is not one of the table of chips"
    unit = _unit(row["compute_unit"])
    if unit is None:
        return "the unit is not one of the chip's, or several machines computed"
    if unit is Unit.GPU and chip.memory.gb_per_s is None:
        return "the chip's GPU has no rated figures"
    shape = _shape(row)
    if isinstance(shape, str):
        return shape
    group, parts = shape
    value = _value(row, rows, sum(times * sum(op.flops for op in ops) for ops, times in parts))
    if isinstance(value, str):
        return value
    kind, figure = value
    return Measurement(
        number,
        f"{row['model']} ({row['task']}), {row['chip']}, {row['compute_unit']}, {row['precision']}",
        group,
        kind,
        parts,
        unit,
        chip,
        cores,
        bandwidth,
        _weight_bits(row),
        8 if "A8" in row["precision"] else 16,
        figure,
        f"{row['model']}|{chip.name}",
        row["source"],
    )


def _chip(text: str) -> tuple[Chip | None, float | None, float | None]:
    """The chip that a row names, its number of GPU cores and its bandwidth in GB/s; each None if it is not known."""
    text = text.replace("M2 (Pro, H14g)", "M2 Pro").replace("M5/H17s (likely M5 Pro)", "M5 Pro")
    cores, bandwidth = re.search(r"(\d+)c GPU", text), re.search(r"(\d+) GB/s", text)
    name = re.sub(r"\s*\(.*", "", text)
    return (
        find_chip(name),
        float(cores[1]) if cores else None,
        float(bandwidth[1]) if bandwidth else None,
    )


def _unit(text: str) -> Unit | None:
    if text.startswith("GPU (2x"):
        return None
    if text.startswith(("ANE+CPU", "as named", "-")):
        return None
    if text.startswith(("GPU", "CPU_AND_GPU")):
        return Unit.GPU
    if text.startswith("CPU") and not text.startswith("CPU_AND_NE"):
        return Unit.AMX
    # Apple's pages measured with all units allowed, of which Core ML prefers the Neural Engine for these models.
    return Unit.ANE


def _weight_bits(row: Mapping[str, str]) -> float | None:
    """The bits of a stored weight, which include the bits of scales and masks, divided among the weights that share
    them; None for weights in fp16.
    """
    text = row["precision"]
    named = {
        "Q4_0": 4.5,
        "Q4_K_M": 4.85,
        "Q8_0": 8.5,
        "MXFP4": 4.25,
        "Q4 default": 4.25 if row["model"].startswith("gpt-oss") else 4.85,
        "4-bit": 4.5 if "mlx" in row["compute_unit"] else 4.85,
        "Q4": 4.5,
        "int4": 4.5,
    }
    if text in named:
        return named[text]
    if sparse := re.search(r"(\d+)% dense", text):
        return 16 * int(sparse[1]) / 100 + 1
    if sparse := re.search(r"(?:Sparsity (\d+)%)|(?:(\d+)% sparse)", text):
        return 16 * (100 - int(sparse[1] or sparse[2])) / 100 + 1
    if bits := re.match(r"(?:W|LUT)(\d)", text):
        return float(bits[1])
    if "Q8_0" in row["model"]:
        return 8.5
    return None


_VISION: Mapping[str, tuple[str, Callable[[], Sketch]]] = {
    "ResNet50": ("convolution", vision.resnet_50),
    "MobileNetv2-1.0": ("convolution", vision.mobilenet_v2),
    "MobileViTv2-1.0": ("convolution", vision.mobilevit_v2),
    "CenterNet (ResNet34 backbone)": ("convolution", vision.centernet_resnet_34),
    "ViT-B/16": ("encoder", vision.vit_base_16),
    # Apple's article measures Apple's own version of the model, which has 1x1 convolutions.
    "distilbert-base seq128 b1": ("encoder", lambda: encoders.bert(128, layers=6, has_convolutions=True)),
    "Parakeet FastConformer encoder 600M L=2885": ("encoder", lambda: encoders.fast_conformer(2885)),
}

_KERNELS: Mapping[str, Callable[[], Sketch]] = {
    "llama_lm_head (Llama-3.2-1B head)": lambda: kernels.product(1, 2048, 128256),
    "matmul 256^3": lambda: kernels.product(256, 256, 256),
    "matmul 2048^3": lambda: kernels.product(2048, 2048, 2048),
    "matmul 4096^3": lambda: kernels.product(4096, 4096, 4096),
    "matvec 2560x2560 const weights": lambda: kernels.product(1, 2560, 2560),
    # The source calls this product "decode-shaped", and gives only the inner size. Assumed: one row and 4096 columns.
    "matmul inner-4096 (bandwidth-bound)": lambda: kernels.product(1, 4096, 4096),
    # The sizes of the next two products are in part 3, chapter 10 of sbryngelson/ane-guide.
    "GEMM K=256 floor": lambda: kernels.product(64, 256, 256),
    "GEMM K=4096 compute": lambda: kernels.product(256, 4096, 4096),
    # Assumed: images of 28x28, the size at which ane-guide measures a single convolution of this kind.
    "Conv stack 16x 3x3 256ch": lambda: kernels.conv_stack(16, 256, 28 * 28, 3),
    # Assumed: width 768 and 12 heads, as in ViT-B.
    "Attention ViT S=197": lambda: kernels.attention_block(197, 768, 12),
    "Attention S=512": lambda: kernels.attention_block(512, 768, 12),
    # Assumed: products of 4096, which are large enough to keep the unit busy.
    "saturated matmul": lambda: kernels.product(4096, 4096, 4096),
    "fp32 GEMM/FLOP peak": lambda: kernels.product(4096, 4096, 4096),
}


def _shape(row: Mapping[str, str]) -> tuple[str, tuple[Part, ...]] | str:
    """The group of a measured model, and its operations; or a text that says why they are unknown."""
    model, task = row["model"], row["task"]
    if model in _VISION:
        group, make = _VISION[model]
        return group, ((make().ops, 1),)
    if model in _KERNELS:
        return "kernel", ((_KERNELS[model]().ops, 1),)
    if found := re.match(r"(\d+)x conv (\d+)ch (?:sp(\d+)|(\d+)x(\d+))", model):
        layers, channels = int(found[1]), int(found[2])
        pixels = int(found[3]) if found[3] else int(found[4]) * int(found[5])
        return "kernel", ((kernels.conv_stack(layers, channels, pixels).ops, 1),)
    if found := re.match(r"conv3x3 64ch (\d+)x(\d+)", model):
        return "kernel", ((kernels.conv_stack(1, 64, int(found[1]) * int(found[2]), 3).ops, 1),)
    if model.startswith("stable-diffusion"):
        return "diffusion", _diffusion(row)
    if model.startswith("whisper-") and task == "encoder":
        return "encoder", ((whisper_encoder(model.removeprefix("whisper-").removesuffix(" Q8_0")).ops, 1),)
    return _decoder(model, task)


def _diffusion(row: Mapping[str, str]) -> tuple[Part, ...]:
    step = diffusion.denoiser().ops
    if row["metric"] == "speed":
        return ((step, 1),)
    # Apple's pages: 50 steps on Macs, 20 on phones.
    steps = 20 if row["device"].startswith("iPhone") else 50
    return (diffusion.text_encoder().ops, 1), (step, steps), (diffusion.image_decoder().ops, 1)


def _decoder(model: str, task: str) -> tuple[str, tuple[Part, ...]] | str:
    name = re.sub(r" (\(model v1\)|Q4_K_M|4bit)$", "", model)
    if name not in DECODERS:
        return "the shapes of the model, or its input, are not known"
    found = re.search(r"(pp|tg|ctx)(\d+)", task)
    number = int(found[2]) if found else 0
    if task.startswith(("pp", "prompt", "prefill")):
        if task.startswith("prefill TTFT"):
            return "the length of the prompt is not known"
        # If the prompt's length is not stated: 300 words count as 400 tokens, else a full window of 512 tokens is
        # computed.
        tokens = number or (400 if "300 words" in task else 512)
        return "prefill", ((decoder_step(name, tokens, 0).ops, 1),)
    # The context grows from 0, so it is half of the tokens on average. If it is not stated, 256 is assumed.
    past = number if found and found[1] == "ctx" else number // 2 or 256
    return "decode", ((decoder_step(name, 1, past).ops, 1),)


def _value(row: Mapping[str, str], rows: Sequence[Mapping[str, str]], flops: float) -> tuple[str, float] | str:
    """What a row measures, "latency" or "joules", with the milliseconds or joules of one call; or a text that says why
    the row has neither.
    """
    metric, number, unit = row["metric"], float(row["value"]), row["unit"]
    if metric.startswith("latency"):
        return "latency", number * {"s": 1e3, "ms": 1.0, "us": 1e-3}[unit]
    if metric in ("decode", "speed"):
        return "latency", 1e3 / number
    if metric == "prefill":
        found = re.search(r"(?:pp|S=)(\d+)", row["task"])
        tokens = int(found[1]) if found else 400 if "300 words" in row["task"] else 512
        return "latency", 1e3 * tokens / number
    if metric == "throughput":
        if any(_is_same(row, each) and each["metric"].startswith("latency") for each in rows):
            return "the rate that belongs to a time in another row"
        return "latency", flops / (number * {"GFLOP/s": 1e6, "GFLOPS": 1e6, "TFLOPS": 1e9, "TOPS": 1e9}[unit])
    if metric == "energy":
        return "joules", number / 1e3
    if metric == "efficiency":
        return "joules", flops / (number * 1e9)
    if metric in ("power", "ane_power"):
        if any(_is_same(row, each) and each["metric"] in ("energy", "efficiency") for each in rows):
            return "the power that belongs to an energy in another row"
        if at := re.search(r"\(at ([\d.]+) ms\)", row["source"]):
            return "joules", number * float(at[1]) / 1e3
        rates = [float(each["value"]) for each in rows if _is_same(row, each) and each["metric"] == "decode"]
        return ("joules", number / rates[0]) if rates else "a power without the time that belongs to it"
    return f"{metric} is neither a time nor an energy of a call"


def _is_same(row: Mapping[str, str], other: Mapping[str, str]) -> bool:
    return all(row[key] == other[key] for key in ("model", "task", "device", "chip", "compute_unit", "precision")) or (
        row["source"] == other["source"]
        and all(row[key] == other[key] for key in ("model", "chip", "compute_unit", "precision"))
    )
