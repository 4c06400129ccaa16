"""Sample inputs of the zoo's models, by name."""

from collections.abc import Mapping
from typing import Any

import numpy as np

NAMES = ("efficientnet_lite0", "magika", "minilm", "minilm_int8", "rapidocr_rec", "silero_vad")


def inputs_of(name: str, *, length: int = 12) -> Mapping[str, Any]:
    """Random inputs, the same in each call, that the model could get from a client. `length` is the length of inputs
    that have one.
    """
    rng = np.random.default_rng(4)
    match name:
        case "efficientnet_lite0":
            return {"image": rng.standard_normal((1, 3, 224, 224), np.float32)}
        case "magika":
            return {"bytes": rng.integers(0, 257, (2, 2048)).astype(np.int32)}
        case "minilm" | "minilm_int8":
            return {
                "input_ids": rng.integers(1000, 20000, (2, length)),
                "attention_mask": (np.arange(length) < np.array([[length], [length // 2]])).astype(np.int64),
                "token_type_ids": np.zeros((2, length), np.int64),
            }
        case "rapidocr_rec":
            return {"x": rng.random((1, 3, 48, 16 * length), np.float32) * 2 - 1}
        case "silero_vad":
            return {
                "input": rng.standard_normal((2, 576), np.float32) * np.float32(0.1),
                "state": rng.standard_normal((2, 2, 128), np.float32) * np.float32(0.1),
                "sr": np.array([16000]),
            }
        case _:
            raise ValueError(name)
