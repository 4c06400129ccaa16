from pathlib import Path

import pytest
from google.protobuf.text_format import Parse

from triune.config.checkpoints import model_type_of, refuse_batching
from triune.core.errors import UnsupportedError
from triune.protos.model_config_pb2 import ModelConfig


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('{"model_type": "bert"}', "bert"),
        ('{"model_type": ["bert"]}', None),
        ('{"model_type": null}', None),
        ("{}", None),
        ("[1]", None),
        ("{", None),
        ("[" * 100_000, None),
        (None, None),
    ],
)
def test_a_folder_tells_the_kind_of_its_model_or_nothing(tmp_path: Path, text: str | None, kind: str | None) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    assert model_type_of(tmp_path) == kind


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ("max_batch_size: 8", "max_batch_size"),
        ("dynamic_batching { }", "dynamic_batching"),
        ("response_cache { enable: true }", "response_cache"),
        ('model_warmup { name: "a" batch_size: 1 }', "model_warmup"),
        ("max_batch_size: 0 response_cache { enable: false }", None),
    ],
)
def test_what_the_backend_does_by_itself_is_refused_by_name(config: str, name: str | None) -> None:
    message = Parse(f'name: "m" {config}', ModelConfig())
    if name is None:
        refuse_batching(message, "a request holds one prompt")
        return
    with pytest.raises(UnsupportedError, match=f"model 'm' has '{name}'; a request holds one prompt, and"):
        refuse_batching(message, "a request holds one prompt")
