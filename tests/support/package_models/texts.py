"""Models in packages that read text."""

import json
from collections.abc import Mapping

import numpy as np
import onnxruntime as ort

from support.package_models.model import Inputs, PackageModel, wheel
from triune.zoo.packages import PackageCache

_KHMERSM = wheel("khmersm", "1.4.2", "62d198b369179b5ae3c6601b11f7633cc062f2dd120bf95eb911d80911684e16", "unstated")
_ROMANIZER = wheel(
    "arabic-name-romanizer", "0.2.0", "f70b89614d9b5866dcf911d098c5e45d2b1f559461f238e8c5259b731fcf2a7e", "MIT"
)
_NAMES = "arabic_name_romanizer/resources"


def _khmer(cache: PackageCache) -> Inputs:
    """The sentence "I love Cambodia, and want to learn" in Khmer letters."""
    (settings,) = cache.read(_KHMERSM, ["khmersm/config.json"])
    ids = json.loads(settings)["char2id"]
    text = "ខ្ញុំស្រលាញ់ប្រទេសកម្ពុជាហើយចង់រៀន"
    return {"x": np.array([[ids[each] for each in text]]), "mask": np.ones((1, len(text)), np.bool_)}


def _name(cache: PackageCache) -> Inputs:
    """The letters of names in two rows, of which the shorter is padded by two."""
    del cache
    letters = np.array([[12, 31, 9, 25, 40, 7], [22, 14, 35, 8, 0, 0]])
    return {"src": letters, "src_mask": letters == 0}


def _begun(cache: PackageCache, folder: str) -> Inputs:
    """The encoder's output for the name, and the first letters of the answer."""
    (encoder,) = cache.read(_ROMANIZER, [f"{folder}/encoder.onnx"])
    session = ort.InferenceSession(encoder, providers=["CPUExecutionProvider"])
    memory, mask, hidden = session.run(None, dict(_name(cache)))
    return {"prefix": np.array([[1, 60, 52], [1, 71, 55]]), "memory": memory, "src_mask": mask, "hidden": hidden}


TEXTS: Mapping[str, PackageModel] = {
    "khmersm": PackageModel(_KHMERSM, "khmersm/model.onnx", _khmer, 0.006),
    "romanizer_encoder": PackageModel(_ROMANIZER, f"{_NAMES}/encoder.onnx", _name, 0.02),
    "romanizer_decoder": PackageModel(_ROMANIZER, f"{_NAMES}/decoder.onnx", lambda cache: _begun(cache, _NAMES), 0.01),
    "persian_encoder": PackageModel(_ROMANIZER, f"{_NAMES}/persian/encoder.onnx", _name, 0.01),
    "persian_decoder": PackageModel(
        _ROMANIZER, f"{_NAMES}/persian/decoder.onnx", lambda cache: _begun(cache, f"{_NAMES}/persian"), 0.01
    ),
}
