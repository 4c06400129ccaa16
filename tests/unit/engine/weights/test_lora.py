import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from contract.decoders.cases import CONFIGS
from triune.core.errors import InvalidArgumentError, NotFoundError, TriuneError, UnsupportedError
from triune.engine.weights.lora import MAX_RANK, Adapter, read_adapter

MODEL = CONFIGS["llama 3"]
LAYER = "model.layers.1.self_attn.q_proj"
PREFIX = f"base_model.model.{LAYER}"
SETTINGS = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": ["q_proj"]}


def tensors(rank: int = 2, out: int = 32, width: int = 32) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(1)
    return {
        f"{PREFIX}.lora_A.weight": rng.standard_normal((rank, width), np.float32),
        f"{PREFIX}.lora_B.weight": rng.standard_normal((out, rank), np.float32),
    }


def write(folder: Path, weights: dict[str, NDArray[Any]] | None = None, **changes: object) -> Path:
    (folder / "adapter_config.json").write_text(json.dumps(SETTINGS | changes))
    save_file(tensors() if weights is None else weights, folder / "adapter_model.safetensors")
    return folder


def read(folder: Path) -> Adapter:
    return read_adapter(folder, "poet", MODEL)


@pytest.mark.parametrize(
    ("changes", "scale"),
    [
        ({}, 3),
        ({"use_rslora": True}, 6 / 2**0.5),
        ({"alpha_pattern": {"q_proj": 1}}, 0.5),
        ({"alpha_pattern": {"proj": 1, "^q_proj": 1, "layers.0.self_attn.q_proj": 1}}, 3),
        ({"alpha_pattern": {"layers\\.1\\.self_attn\\.q_proj": 4, "q_proj": 1}}, 2),
        ({"alpha_pattern": {f"^{LAYER}": 4}}, 2),
        ({"r": 8, "rank_pattern": {"q_proj": 2}}, 3),
        ({"init_lora_weights": "gaussian", "lora_dropout": 0.1, "loftq_config": {}, "megatron_core": "x"}, 3),
    ],
)
def test_the_scale_is_that_of_the_settings(tmp_path: Path, changes: dict[str, object], scale: float) -> None:
    found = read(write(tmp_path, **changes)).modules
    assert list(found) == [LAYER]
    np.testing.assert_array_equal(found[LAYER].down, tensors()[f"{PREFIX}.lora_A.weight"])
    np.testing.assert_allclose(found[LAYER].up, tensors()[f"{PREFIX}.lora_B.weight"] * np.float32(scale))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_matrices_of_16_bits_are_read(tmp_path: Path, dtype: Any) -> None:
    found = read(write(tmp_path, {name: each.astype(dtype) for name, each in tensors().items()}))
    wanted = tensors()[f"{PREFIX}.lora_A.weight"].astype(dtype).astype(np.float32)
    np.testing.assert_array_equal(found.modules[LAYER].down, wanted)


def test_the_digest_tells_other_numbers_and_not_other_names(tmp_path: Path) -> None:
    first = read(write(tmp_path)).digest
    assert read_adapter(tmp_path, "other", MODEL).digest == first
    assert read(write(tmp_path, lora_alpha=7)).digest != first


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"peft_type": "LOHA"}, UnsupportedError, "peft_type is 'LOHA'; known here are 'LORA'"),
        ({"r": MAX_RANK + 1}, InvalidArgumentError, f"r is {MAX_RANK + 1}; expected a whole number from 1 to 512"),
        ({"r": 10**400}, InvalidArgumentError, "r is a whole number of 1329 bits"),
        ({"r": 0}, InvalidArgumentError, "r is 0"),
        ({"r": None}, InvalidArgumentError, "r is None"),
        ({"r": 4}, InvalidArgumentError, r"is F32\[2, 32\]; by the config and the model it is \[4, 32\]"),
        ({"rank_pattern": {"q_proj": 1e9}}, InvalidArgumentError, "the rank of 'model.*' is 1e\\+09; expected"),
        ({"rank_pattern": {"q_proj": 1.5}}, InvalidArgumentError, "is 1.5; expected a whole number"),
        ({"rank_pattern": {"q_proj": -1}}, InvalidArgumentError, "is -1; expected a whole number"),
        ({"rank_pattern": {"(q|v)_proj": 2}}, UnsupportedError, "only names of layers are known here"),
        ({"rank_pattern": {"(a*)*b": 2}}, UnsupportedError, "not other regular expressions"),
        ({"alpha_pattern": {"q_proj": "x"}}, InvalidArgumentError, "q_proj is 'x'; expected a finite number"),
        ({"alpha_pattern": [1]}, InvalidArgumentError, "alpha_pattern is .* expected an object"),
        ({"lora_alpha": float("inf")}, InvalidArgumentError, "lora_alpha is inf; expected a finite number"),
        ({"lora_alpha": 1e9}, InvalidArgumentError, "lora_B with its scale has the number .*; the limit is 65504"),
        ({"bias": "all"}, UnsupportedError, "bias is 'all'"),
        ({"use_dora": True}, UnsupportedError, "use_dora is True; an adapter may have the two matrices"),
        ({"modules_to_save": ["lm_head"]}, UnsupportedError, "modules_to_save is"),
        ({"lora_bias": True}, UnsupportedError, "lora_bias is True"),
        ({"init_lora_weights": "pissa"}, UnsupportedError, "init_lora_weights is 'pissa'"),
        ({"layer_replication": [[0, 1]]}, UnsupportedError, "layer_replication"),
        ({"alora_invocation_tokens": [1]}, UnsupportedError, "alora_invocation_tokens"),
    ],
)
def test_settings_that_it_cannot_follow_are_errors(
    tmp_path: Path, changes: dict[str, object], kind: type[TriuneError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        read(write(tmp_path, **changes))


def _without(kind: str) -> dict[str, NDArray[Any]]:
    return {name: each for name, each in tensors().items() if kind not in name}


def _named(module: str) -> dict[str, NDArray[Any]]:
    return {name.replace(LAYER, module): each for name, each in tensors().items()}


@pytest.mark.parametrize(
    ("weights", "kind", "message"),
    [
        ({}, InvalidArgumentError, "has no tensor"),
        (_without("lora_A"), InvalidArgumentError, "lacks lora_A.weight of 'base_model.model.model.layers.1"),
        (_without("lora_B"), InvalidArgumentError, "lacks lora_B.weight"),
        (tensors(out=31), InvalidArgumentError, r"is F32\[31, 2\]; by the config and the model it is \[32, 2\]"),
        (tensors(width=64), InvalidArgumentError, r"is F32\[2, 64\]; .* it is \[2, 32\]"),
        (tensors(rank=3), InvalidArgumentError, r"is F32\[3, 32\]; .* it is \[2, 32\]"),
        (_named("model.layers.2.self_attn.q_proj"), InvalidArgumentError, "no linear layer of this model"),
        (_named("model.embed_tokens"), InvalidArgumentError, "no linear layer of this model; .* embeddings"),
        (_named("lm_head"), InvalidArgumentError, "no linear layer of this model"),
        (_named("model.layers.1.self_attn.qkv_proj"), InvalidArgumentError, r"it is \[64, 2\]"),
        (_named("\x1b[2J"), InvalidArgumentError, "no linear layer of this model"),
        (tensors() | _named("layers.1.self_attn.q_proj"), InvalidArgumentError, "is there twice"),
        (tensors() | {"lora_magnitude_vector": np.ones(2)}, UnsupportedError, "the tensor 'lora_magnitude_vector'"),
        ({name: each.astype(np.int32) for name, each in tensors().items()}, InvalidArgumentError, r"is I32\[2, 32\]"),
        ({name: each * np.float32("nan") for name, each in tensors().items()}, InvalidArgumentError, "number nan"),
        ({name: each * np.float32(1e6) for name, each in tensors().items()}, InvalidArgumentError, "limit is 65504"),
    ],
)
def test_tensors_that_do_not_fit_the_model_are_errors(
    tmp_path: Path, weights: dict[str, NDArray[Any]], kind: type[TriuneError], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        read(write(tmp_path, weights))
    assert "\x1b" not in str(caught.value)


def test_files_that_are_missing_or_broken_are_errors(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="adapter 'poet': there is no adapter_config.json in its folder"):
        read(tmp_path)
    weights = write(tmp_path) / "adapter_model.safetensors"
    for end in range(0, weights.stat().st_size, 16):
        other = tmp_path / "cut"
        other.mkdir(exist_ok=True)
        write(other)
        (other / weights.name).write_bytes(weights.read_bytes()[:end])
        with pytest.raises(InvalidArgumentError, match="cannot be read"):
            read(other)
    weights.unlink()
    with pytest.raises(NotFoundError, match="neither adapter_model.safetensors nor"):
        read(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(InvalidArgumentError, match="it is not JSON"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "../x", "x" * 129, "é"])
def test_a_name_has_plain_characters(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="a name has letters, digits"):
        read_adapter(write(tmp_path), name, MODEL)
