"""Compress a model by NNCF for OpenVINO, which `compress.py --nncf PYTHON` runs in an environment of its own.

Usage: nncf_peer.py SOURCE.onnx TARGET.xml SAMPLES FORM
The environment has nncf and openvino (pip install nncf openvino). SAMPLES: a folder of .npz files with a sample each.
FORM: "int8" for nncf.quantize, weights and activations, with its SmoothQuant for transformers; "int4" for
nncf.compress_weights with groups of 32.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    import nncf
    import openvino

    source, target, samples, form = sys.argv[1:]
    model = openvino.Core().read_model(source)
    files = sorted(Path(samples).iterdir())
    data = nncf.Dataset([dict(np.load(file)) for file in files])
    has_convolutions = any(each.get_type_name() == "Convolution" for each in model.get_ops())
    if form == "int8":
        kind: Any = None if has_convolutions else nncf.ModelType.TRANSFORMER
        made = nncf.quantize(model, data, model_type=kind, subset_size=len(files))
    else:
        made = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT4_SYM, group_size=32)
    openvino.save_model(made, target, compress_to_fp16=False)


if __name__ == "__main__":
    main()
