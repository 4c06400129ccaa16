"""Small encoders with seeded random weights, as folders of a repository."""

import json
from pathlib import Path

from safetensors.numpy import save_file

from contract.architectures.conftest import models
from contract.architectures.hugging_face import weight
from support.scripted import byte_tokenizer

MAX_TOKENS = 64
WIDTH = 32
VOCABULARY = 300
"""More rows than the tokenizer has tokens."""


def write_encoder_model(folder: Path, case: str = "bert", *, pooling: str | None = None, **changes: object) -> Path:
    """Write a case of the contract suite, with a tokenizer whose tokens are bytes. `pooling` adds the files of
    sentence-transformers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = models()[case]
    (folder / "config.json").write_text(json.dumps(model["config"] | {"vocab_size": VOCABULARY} | changes))
    shapes = {
        name: (VOCABULARY, WIDTH) if "word_embeddings" in name else tuple(shape)
        for name, shape in model["tensors"].items()
    }
    save_file({name: weight(name, shape) for name, shape in shapes.items()}, folder / "model.safetensors")
    byte_tokenizer().backend.save(str(folder / "tokenizer.json"))
    if pooling is not None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": pooling}))
    return folder
