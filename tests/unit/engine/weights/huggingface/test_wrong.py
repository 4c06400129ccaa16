import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from triune.core.errors import InvalidArgumentError, NotFoundError, TriuneError, UnsupportedError
from triune.engine.weights import open_checkpoint
from triune.engine.weights.config import LlamaConfig, SpecialTokens
from triune.engine.weights.config.shapes import tensor_shapes
from triune.engine.weights.fields import Fields
from triune.engine.weights.huggingface.llama import read_llama

_CONFIG = {
    "model_type": "llama",
    "vocab_size": 20,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
}


def _write(folder: Path, **changes: object) -> Path:
    (folder / "config.json").write_text(json.dumps(_CONFIG | changes))
    config = read_llama(Fields(_CONFIG, "config"), SpecialTokens())
    assert isinstance(config, LlamaConfig)
    save_file(
        {name: np.ones(shape, np.float32) for name, shape in tensor_shapes(config).items()},
        folder / "model.safetensors",
    )
    return folder


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"model_type": "mamba"}, UnsupportedError, "the model type 'mamba' is not known here; known are llama"),
        ({"hidden_size": -1}, InvalidArgumentError, "hidden_size is -1; expected a whole number from 1"),
        ({"hidden_size": "16"}, InvalidArgumentError, "hidden_size is '16'; expected a whole number"),
        ({"hidden_size": 10**400}, InvalidArgumentError, "hidden_size is a whole number of 1329 bits"),
        ({"num_hidden_layers": 10**9}, InvalidArgumentError, "from 1 to 4096"),
        ({"num_hidden_layers": 2}, InvalidArgumentError, "9 of 21 tensors are missing"),
        ({"hidden_size": 8}, InvalidArgumentError, r"has the shape \[20, 16\]; by the config it has \[20, 8\]"),
        ({"rms_norm_eps": float("nan")}, InvalidArgumentError, "rms_norm_eps is nan; expected a finite number above 0"),
        ({"alibi": True}, UnsupportedError, "1 settings are not known here: alibi = True"),
        ({"hidden_act": "mish"}, UnsupportedError, "hidden_act is 'mish'; known here are 'silu'"),
        ({"rope_scaling": {"rope_type": "twisted"}}, UnsupportedError, "rope_type is 'twisted'"),
        (
            {"rope_scaling": {"type": "linear"}},
            InvalidArgumentError,
            "factor is None; expected a finite number above 0",
        ),
        ({"rope_scaling": {"type": "linear", "factor": 2, "odd": 1}}, UnsupportedError, "odd = 1"),
        ({"eos_token_id": 20}, InvalidArgumentError, "the eos token is 20; the embedding has 20 rows"),
        ({"quantization_config": {"quant_method": "fp8"}}, UnsupportedError, "quant_method is 'fp8'"),
        (
            {"num_key_value_heads": 3},
            InvalidArgumentError,
            "3 heads of keys do not divide the number of heads of queries",
        ),
        ({"layer_types": ["full_attention"] * 3}, InvalidArgumentError, "1 types, one a layer"),
    ],
)
def test_settings_that_are_refused(
    changes: dict[str, object], kind: type[TriuneError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=message):
        open_checkpoint(_write(tmp_path, **changes))


_BERT = {"model_type": "bert", "hidden_size": 32}
_GPT2 = {"model_type": "gpt2", "n_embd": 32}
_T5 = {"model_type": "t5", "relative_attention_num_buckets": 8}
_WHISPER = {"model_type": "whisper", "d_model": 32, "encoder_attention_heads": 4, "decoder_attention_heads": 4}


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (_BERT, {"num_attention_heads": 64}, "64 heads do not divide the width 32; correct the number of heads"),
        (_BERT, {"num_attention_heads": 5}, "5 heads do not divide the width 32"),
        (_GPT2, {"n_head": 64}, "64 heads do not divide the width 32"),
        (_WHISPER, {"encoder_attention_heads": 64}, "64 heads do not divide the width 32"),
        (_WHISPER, {"decoder_attention_heads": 3}, "3 heads do not divide the width 32"),
        (_T5, {"relative_attention_max_distance": 2}, "max_distance is 2; expected a whole number from 5 to 65536"),
        (_T5, {"relative_attention_max_distance": 4}, "max_distance is 4; expected a whole number from 5 to 65536"),
        (_T5, {"relative_attention_max_distance": 1 << 28}, "max_distance is 268435456; expected a whole number"),
    ],
)
def test_sizes_with_which_no_graph_can_be_written(
    config: dict[str, object], changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(InvalidArgumentError, match=message):
        open_checkpoint(tmp_path)


def test_settings_that_say_nothing_are_no_fault(tmp_path: Path) -> None:
    open_checkpoint(_write(tmp_path, alibi=False, shared_experts=0, attn_window=None, torch_dtype="bfloat16"))


def test_files_that_are_missing_or_broken(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file or directory"):
        open_checkpoint(tmp_path / "nothing")
    with pytest.raises(NotFoundError, match=r"there is no config\.json"):
        open_checkpoint(tmp_path)
    folder = _write(tmp_path)
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    for size in (0, 4, 100, len(content) - 1):
        weights.write_bytes(content[:size])
        with pytest.raises(InvalidArgumentError, match=r"model\.safetensors: cannot be read"):
            open_checkpoint(folder)
    weights.unlink()
    with pytest.raises(NotFoundError, match=r"neither model\.safetensors nor"):
        open_checkpoint(folder)
    weights.mkdir()
    with pytest.raises(InvalidArgumentError, match="it is a folder, not a file"):
        open_checkpoint(folder)
    (folder / "config.json").write_text("[1]")
    with pytest.raises(InvalidArgumentError, match="it holds a list, not a JSON object"):
        open_checkpoint(folder)
    (folder / "config.json").write_text("[" * 100_000)
    with pytest.raises(InvalidArgumentError, match="it is not JSON"):
        open_checkpoint(folder)


def test_shards_and_links(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    _write(whole)
    names = open_checkpoint(whole).names
    blobs, parted = tmp_path / "blobs", tmp_path / "parted"
    blobs.mkdir()
    parted.mkdir()
    # As in the hub's cache, where each file is a link.
    shards = {"a-1.safetensors": names[:3], "a-2.safetensors": names[3:]}
    for shard, members in shards.items():
        save_file({name: open_checkpoint(whole).tensor(name).dequantize() for name in members}, blobs / shard)
        (parted / shard).symlink_to(blobs / shard)
    (parted / "config.json").symlink_to(whole / "config.json")
    index = {name: shard for shard, members in shards.items() for name in members}
    (parted / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    assert sorted(open_checkpoint(parted).names) == sorted(names)

    for wrong, message in {
        "../whole/model.safetensors": "expected the name of a .safetensors file",
        "/etc/passwd": "expected the name of a .safetensors file",
        "a-3.safetensors": "a-3.safetensors: cannot be read",
        "a-1.safetensors": "1 tensors of the index are not in it",
    }.items():
        changed = index | {names[-1]: wrong}
        (parted / "model.safetensors.index.json").write_text(json.dumps({"weight_map": changed}))
        with pytest.raises(InvalidArgumentError, match=message):
            open_checkpoint(parted)


def test_a_tensor_that_nobody_uses_is_refused(tmp_path: Path) -> None:
    folder = _write(tmp_path)
    weights = folder / "model.safetensors"
    tensors = {name: open_checkpoint(folder).tensor(name).dequantize() for name in open_checkpoint(folder).names}
    # A table that is computed, and a bias of GPTQ's tools where there is none.
    save_file(tensors | {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32)}, weights)
    assert open_checkpoint(folder).names
    bias = "model.layers.0.self_attn.q_proj.bias"
    save_file(tensors | {bias: np.zeros(16, np.float32)}, weights)
    assert bias not in open_checkpoint(folder).names
    save_file(tensors | {bias: np.ones(16, np.float32)}, weights)
    with pytest.raises(UnsupportedError, match=r"1 tensors are no part of the architecture .*q_proj\.bias"):
        open_checkpoint(folder)
    with pytest.raises(NotFoundError, match="has no tensor 'x'"):
        open_checkpoint(_write(tmp_path)).tensor("x")
