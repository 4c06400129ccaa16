"""Small transformers with seeded random weights, as folders of a repository."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from support.scripted import EOS, VOCAB, byte_tokenizer

CONTEXT = 96

CONFIG: dict[str, object] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": VOCAB,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "eos_token_id": EOS,
}


def write_text_model(folder: Path, *, fill: float | None = None, **changes: object) -> Path:
    """Write config.json, model.safetensors and tokenizer.json of a small LLaMA. If `fill` is given, all weights have
    this value.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = CONFIG | changes
    (folder / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(3)
    width, inner, num_layers = (
        int(str(config[name])) for name in ("hidden_size", "intermediate_size", "num_hidden_layers")
    )
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens": (VOCAB, width), "model.norm": (width,)}
    for layer in range(num_layers):
        name = f"model.layers.{layer}"
        shapes |= {f"{name}.{norm}_layernorm": (width,) for norm in ("input", "post_attention")}
        shapes |= {f"{name}.self_attn.{kind}_proj": (width // 2 if kind in "kv" else width, width) for kind in "qkvo"}
        shapes |= {
            f"{name}.mlp.{kind}_proj": (width, inner) if kind == "down" else (inner, width)
            for kind in ("gate", "up", "down")
        }
    tensors = {
        f"{name}.weight": (rng.normal(size=shape) if fill is None else np.full(shape, fill)).astype(np.float32)
        for name, shape in shapes.items()
    }
    save_file(tensors, folder / "model.safetensors")
    byte_tokenizer().backend.save(str(folder / "tokenizer.json"))
    return folder


def write_adapter(folder: Path, seed: int = 1, *, rank: int = 4, **changes: object) -> Path:
    """Write a LoRA adapter for this model as PEFT does, with random matrices for the query projections and the last
    layer of each MLP.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": ["q_proj", "down_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(settings | changes))
    rng = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray] = {}
    for layer in range(2):
        for name, width in (("self_attn.q_proj", 32), ("mlp.down_proj", 48)):
            prefix = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{prefix}.lora_A.weight"] = rng.normal(size=(rank, width)).astype(np.float32)
            tensors[f"{prefix}.lora_B.weight"] = rng.normal(size=(32, rank)).astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder
