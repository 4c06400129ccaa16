"""T5 as a directory in Hugging Face's form, with the weights of a case, which are random, and a tokenizer."""

import string
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from contract.architectures.conftest import checkpoint_of
from contract.architectures.hugging_face import VOCABULARY
from triune.engine.weights import Checkpoint

PAD, END, UNKNOWN = range(3)
CASES = ("t5", "t5 1.1")


def t5_tokenizer() -> tokenizers.Tokenizer:
    """A SentencePiece tokenizer of single letters and some pairs, which ends a text by `</s>` as T5's do."""
    pairs = ["▁t", "▁a", "he", "in", "er", "on", "re", "▁w", "▁s", "at", "en", "nd", "or", "ou", "is", "it", "▁o", "▁b"]
    pieces = ["▁", *string.ascii_lowercase, *pairs]
    assert 3 + len(pieces) == VOCABULARY
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0)]
    vocabulary = special + [(piece, -3.0 - (len(piece) == 1)) for piece in pieces]
    made = tokenizers.Tokenizer(models.Unigram(vocabulary, unk_id=UNKNOWN))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", END)])
    made.add_special_tokens(["<pad>", "</s>", "<unk>"])
    return made


def write_t5(case: str, folder: Path) -> Checkpoint:
    """Write the case to a folder, which is made."""
    folder.mkdir(parents=True)
    checkpoint = checkpoint_of(case, folder)
    t5_tokenizer().save(str(folder / "tokenizer.json"))
    return checkpoint
