"""Compressed forms of MiniLM, EfficientNet-Lite0 and ResNet-50's shape (random weights): size, speed and accuracy,
beside ONNX Runtime's own quantizer and NNCF's for OpenVINO.

Usage: compress.py [--only minilm|efficientnet_lite0|resnet50] [--forms FORM ...] [--units cpu amx] [--seconds 2]
                   [--nncf PYTHON]
--forms: some of those that the table names, such as "int8, activations" and "NNCF, int8"; all without it.
--nncf: the Python of an environment with nncf and openvino; its models run in the OpenVINO of this one, with the
threads and the precision that Triune gives OpenVINO.
All forms of a model take turns on each unit, call by call; a figure is the median of a call. Where other work runs on
the machine, compare the milliseconds of CPU time, which lack those of a model in a process of its own. The answers of
each unit are compared with fp32 on cpu: by the mean cosine of outputs, and for EfficientNet by the share of equal
classes, on cuts of pictures of scikit-image. Spearman is the correlation of MiniLM's similarities with those that
people saw in 50 news texts (Lee, Pincombe and Welsh, 2005; in gensim's package). Calibration uses other pictures and
texts.
"""

import argparse
import io
import logging
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime import quantization
from PIL import Image
from tokenizers import Tokenizer

import triune
from resnet50 import resnet_50
from servers import heading
from triune.zoo.packages import Package, PackageCache
from triune.zoo.repository import build_repository
from triune.zoo.samples import PACKAGE as PICTURES

GENSIM = Package(
    name="gensim",
    version="4.4.0",
    filename="gensim-4.4.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
    sha256="91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8",
    licence="LGPL-2.1-only",
)
MEAN, DEVIATION = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
Sample = Mapping[str, NDArray[Any]]
Made = Callable[[Path, Path, Path], None]
"""Writes a form: of a model, to a file, by a folder of samples."""

UNITS = ("cpu", "amx")
MODELS = ("minilm", "efficientnet_lite0", "resnet50")


def pictures(names: Sequence[str]) -> Iterator[Sample]:
    """Cuts of pictures at four places, mirrored, and whole, as EfficientNet takes them."""
    for name in names:
        (content,) = PackageCache().read(PICTURES, [f"skimage/data/{name}"])
        whole = Image.open(io.BytesIO(content)).convert("RGB")
        width, height = whole.size
        side = min(width, height) * 3 // 4
        places = [(0, 0), (width - side, 0), (0, height - side), (width - side, height - side)]
        cuts = [whole, *(whole.crop((x, y, x + side, y + side)) for x, y in places)]
        for cut in (*cuts, *(each.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for each in cuts)):
            values = (np.asarray(cut.resize((224, 224))) / 255 - MEAN) / DEVIATION
            yield {"image": values.transpose(2, 0, 1)[np.newaxis].astype(np.float32)}


def texts(name: str, most: int, tokenizer: Tokenizer) -> Iterator[Sample]:
    """Texts of gensim's package as MiniLM takes them, cut to 256 tokens."""
    (content,) = PackageCache().read(GENSIM, [f"gensim/test/test_data/{name}"])
    tokenizer.enable_truncation(256)
    tokenizer.no_padding()
    for line in content.decode("latin-1").strip().splitlines()[:most]:
        ids = np.array([tokenizer.encode(line).ids])
        yield {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


class Reader(quantization.CalibrationDataReader):
    """Samples for ONNX Runtime's calibration."""

    def __init__(self, folder: Path) -> None:
        self._files = iter(sorted(folder.iterdir()))

    def get_next(self) -> Any:
        file = next(self._files, None)
        return None if file is None else dict(np.load(file))


def by_triune(**options: Any) -> Made:
    def make(source: Path, target: Path, samples: Path) -> None:
        triune.compress(source, target, calibrate=samples, force=True, **options)

    return make


def static_default(source: Path, target: Path, samples: Path) -> None:
    quantization.quantize_static(source, target, Reader(samples))


def dynamic_default(source: Path, target: Path, samples: Path) -> None:
    del samples
    quantization.quantize_dynamic(source, target)


FORMS: Mapping[str, Made] = {
    "onnxruntime, dynamic": dynamic_default,
    "onnxruntime, static": static_default,
    "int8": by_triune(weights="int8"),
    "int4, groups of 32": by_triune(weights="int4", group=32),
    "int8, activations": by_triune(weights="int8", activations="int8"),
    "int8, dynamic": by_triune(weights="int8", activations="dynamic"),
    "int8, activations, best": by_triune(weights="int8", activations="int8", method="best"),
    "int4, groups of 32, best": by_triune(weights="int4", group=32, method="best"),
}
NNCF_FORMS = ("int8", "int4")


class OpenVinoModel:
    """A model of OpenVINO's own form on a unit, as `triune.load` runs those of ONNX."""

    def __init__(self, path: Path, unit: str) -> None:
        import openvino

        precision = {"cpu": "f32", "amx": "bf16"}[unit]
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": len(os.sched_getaffinity(0)),
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._model: Any = openvino.Core().compile_model(path, "CPU", settings)

    def run(self, inputs: Sample) -> Mapping[str, NDArray[Any]]:
        found = self._model(dict(inputs))
        # NNCF gives some outputs another name beside the model's own.
        return {name: found[each] for each in self._model.outputs for name in each.get_names()}


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - counts + 1 + ends) / 2)[inverse]


def spearman(embeddings: NDArray[np.float64]) -> float:
    (judged,) = PackageCache().read(GENSIM, ["gensim/test/test_data/similarities0-1.txt"])
    people = np.array([[float(value) for value in line.split()] for line in judged.decode().strip().splitlines()])
    pairs = np.triu_indices(len(people), 1)
    return float(np.corrcoef(ranks((embeddings @ embeddings.T)[pairs]), ranks(people[pairs]))[0, 1])


def timed(models: Mapping[str, Any], inputs: Sample, seconds: float) -> dict[str, tuple[float, float]]:
    """The milliseconds of a call of each model, and those of CPU time."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds * len(models) or any(len(each) < 3 for each in times.values()):
        for name, model in models.items():
            wall, cpu = time.perf_counter(), time.process_time()
            model.run(inputs)
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: (1e3 * statistics.median(w for w, _ in each), 1e3 * statistics.median(c for _, c in each))
        for name, each in times.items()
    }


def accuracy(model: Any, samples: Sequence[Sample], expected: Sequence[NDArray[Any]], output: str) -> str:
    found = [np.asarray(model.run(each)[output])[0].astype(np.float64) for each in samples]
    cosines = [float(a @ b / np.sqrt((a @ a) * (b @ b))) for a, b in zip(found, expected, strict=True)]
    text = f"cosine {statistics.mean(cosines):.5f}"
    if output == "probabilities":
        return f"{text}  top-1 {np.mean([a.argmax() == b.argmax() for a, b in zip(found, expected, strict=True)]):.2%}"
    rows = np.array(found)
    return f"{text}  Spearman {spearman(rows / np.linalg.norm(rows, axis=1, keepdims=True)):.4f}"


def compare(
    name: str, source: Path, calibration: Sequence[Sample], samples: Sequence[Sample], given: argparse.Namespace
) -> None:
    output = onnx.load(source, load_external_data=False).graph.output[-1].name
    one = {key: array[:, :128] if array.ndim == 2 else array for key, array in samples[0].items()}
    eight = {key: np.repeat(array, 8, axis=0) for key, array in one.items()}
    print(f"\n{name}: {len(samples)} samples compared, {len(calibration)} for calibration")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "samples"
        data.mkdir()
        for number, each in enumerate(calibration):
            np.savez(data / f"{number:03}.npz", **each)
        paths = {"source": source}
        for form, make in FORMS.items():
            if given.forms and form not in given.forms:
                continue
            if form == "int8, dynamic" and name != "minilm":
                continue
            paths[form] = Path(folder) / f"{len(paths)}.onnx"
            make(source, paths[form], data)
        for form in NNCF_FORMS if given.nncf is not None else ():
            if given.forms and f"NNCF, {form}" not in given.forms:
                continue
            paths[f"NNCF, {form}"] = Path(folder) / f"{len(paths)}.xml"
            script = Path(__file__).with_name("nncf_peer.py")
            command = [given.nncf, str(script), str(source), str(paths[f"NNCF, {form}"]), str(data), form]
            subprocess.run(command, check=True, capture_output=True)
        with triune.load(source, "cpu") as model:
            expected = [np.asarray(model.run(each)[output])[0].astype(np.float64) for each in samples]
        for unit in given.units:
            with ExitStack() as stack:
                models: dict[str, Any] = {}
                for form, path in paths.items():
                    try:
                        if path.suffix == ".xml":
                            models[form] = OpenVinoModel(path, unit)
                        else:
                            models[form] = stack.enter_context(triune.load(path, unit))
                        models[form].run(one)
                    except triune.TriuneError as error:
                        models.pop(form, None)
                        print(f"{unit:4} {form:24} does not run: {str(error)[:90]}")
                single, several = timed(models, one, given.seconds), timed(models, eight, given.seconds)
                for form, model in models.items():
                    (wall, cpu), (walls, cpus) = single[form], several[form]
                    print(
                        f"{unit:4} {form:24} {size_of(paths[form]) / 1e6:6.1f} MB  1 row {wall:7.1f} ms "
                        f"(CPU {cpu:6.1f})  8 rows {walls:7.1f} ms (CPU {cpus:6.1f})  "
                        f"{accuracy(model, samples, expected, output)}",
                        flush=True,
                    )


def size_of(path: Path) -> int:
    """The bytes of a model; OpenVINO's has its weights beside it."""
    beside = path.with_suffix(".bin")
    return path.stat().st_size + (beside.stat().st_size if path.suffix == ".xml" else 0)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--only", choices=MODELS)
    arguments.add_argument("--forms", nargs="+", choices=[*FORMS, *(f"NNCF, {each}" for each in NNCF_FORMS)])
    arguments.add_argument("--units", nargs="+", choices=UNITS, default=UNITS)
    arguments.add_argument("--seconds", type=float, default=2.0)
    arguments.add_argument("--nncf", metavar="PYTHON")
    given = arguments.parse_args()
    logging.disable(logging.WARNING)
    print(heading("compress.py"))
    with tempfile.TemporaryDirectory() as folder:
        models = [given.only] if given.only else list(MODELS)
        build_repository(Path(folder), models=[name for name in models if name != "resnet50"])
        for name in models:
            source = Path(folder) / name / "1" / "model.onnx"
            if name == "resnet50":
                source.parent.mkdir(parents=True)
                source.write_bytes(resnet_50())
            if name == "minilm":
                tokenizer = Tokenizer.from_file(str(Path(folder) / name / "tokenizer.json"))
                calibration = list(texts("lee_background.cor", 24, tokenizer))
                samples = list(texts("lee.cor", 50, tokenizer))
            else:
                calibration = list(pictures(("motorcycle_right.png", "rocket.jpg", "hubble_deep_field.jpg")))
                samples = list(pictures(("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png")))
            compare(name, source, calibration, samples, given)


if __name__ == "__main__":
    main()
