"""Makes answers.npz: logits of the cases by Hugging Face's transformers, which shares no code with Triune.

Run it where torch==2.13.0 and transformers==5.24.0 are installed: `python tests/contract/decoders/make_answers.py`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from hugging_face import CASES, STORED, token_ids, weight

HERE = Path(__file__).parent


def model_of(family: str, options: dict[str, Any]) -> Any:
    """The model in fp32, with its attention written out, and the seeded weights."""
    config_name = f"{family}TextConfig" if family == "Gemma3" else f"{family}Config"
    config = getattr(transformers, config_name)(**options, attn_implementation="eager")
    model_name = f"{family}LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM"
    model = getattr(transformers, model_name)(config).eval().float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(_weight(family, options, name, tuple(parameter.shape))))
    return model


def _weight(family: str, options: dict[str, Any], name: str, shape: tuple[int, ...]) -> np.ndarray:
    is_gemma = family.startswith("Gemma")
    if family == "GPT2" and len(shape) == 2 and name.split(".")[-2] in ("c_attn", "c_proj", "c_fc"):
        return weight(name, shape[::-1], is_gemma=False).T.copy()
    parts: list[tuple[str, int]] = []
    if "qkv_proj" in name:
        size = options["hidden_size"] // options["num_attention_heads"]
        heads = options["num_attention_heads"], *[options["num_key_value_heads"]] * 2
        parts = [(name.replace("qkv", each), size * count) for each, count in zip("qkv", heads, strict=True)]
    elif "gate_up_proj" in name:
        parts = [(name.replace("gate_up", each), shape[0] // 2) for each in ("gate", "up")]
    if parts:
        return np.concatenate([weight(part, (rows, shape[1]), is_gemma=False) for part, rows in parts])
    return weight(name, shape, is_gemma=is_gemma)


if __name__ == "__main__":
    answers = {}
    for case, (family, options) in CASES.items():
        with torch.no_grad():
            logits = model_of(family, options)(torch.from_numpy(token_ids())[None]).logits[0]
        answers[case] = logits.numpy()[STORED]
        print(f"{case}: {answers[case].shape}, {np.abs(answers[case]).mean():.3f} on average")
    np.savez_compressed(HERE / "answers.npz", **answers)
