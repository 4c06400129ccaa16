"""What each precision of a decoder costs in accuracy: perplexity on real text, and how often the most probable token is
that of the exact computation (fp32 throughout, from the same packed weights).

Usage: perplexity.py FILE.gguf TEXT [--tokens 4096] [--window 512]
TEXT: a file of plain text. Each window of it is read from its first token on, without the windows before it.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from triune.core.decoder import DecoderStep
from triune.core.units import Unit
from triune.engine.models import write_model
from triune.engine.weights.open import open_checkpoint
from triune.runtimes.openvino.decoder import OpenVinoDecoder

FORMS = {
    "fp32": {"precision": "fp32", "cache_type": "fp32", "is_exact": True},
    "fp32, cache in 8 bits": {"precision": "fp32", "cache_type": "int8", "is_exact": True},
    "fp32, activations in 8 bits": {"precision": "fp32", "cache_type": "fp32", "is_exact": False},
    "fp32, cache and activations in 8 bits": {"precision": "fp32", "cache_type": "int8", "is_exact": False},
    "bf16": {"precision": "bf16", "cache_type": "bf16", "is_exact": True},
    "bf16, cache in 8 bits": {"precision": "bf16", "cache_type": "int8", "is_exact": True},
}


def read(decoder: OpenVinoDecoder, tokens: list[int], piece: int = 128) -> NDArray[np.float32]:
    """The logits after each token, FP32 [tokens, vocabulary]. The tokens are read in pieces, so that later ones see the
    keys and values of earlier ones as the cache holds them.
    """
    num_blocks = -(-len(tokens) // decoder.block_size)
    rows: list[NDArray[np.float32]] = []
    for begin in range(0, len(tokens), piece):
        part = tokens[begin : begin + piece]
        step = DecoderStep(
            np.array(part),
            np.arange(begin, begin + len(part)),
            np.array([begin], np.int32),
            np.array([0, len(part)], np.int32),
            np.arange(num_blocks, dtype=np.int32),
            np.array([0, num_blocks], np.int32),
            np.arange(len(part)),
        )
        rows.append(decoder.run(step).copy())
    return np.concatenate(rows)


def main() -> None:
    """Measure each form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--window", type=int, default=512)
    options = parser.parse_args()
    checkpoint = open_checkpoint(options.file, inexact="offsets")
    tokens = checkpoint.tokenizer().encode(options.text.read_text(), add_special_tokens=False)[: options.tokens]
    windows = [tokens[begin : begin + options.window] for begin in range(0, len(tokens), options.window)]
    best: list[NDArray[np.int64]] = []
    print(f"{len(tokens)} tokens of {options.text.name}, windows of {options.window}")
    for name, form in FORMS.items():
        decoder = OpenVinoDecoder(
            write_model(checkpoint.config, checkpoint, "paged"),
            unit=Unit.CPU,
            num_threads=2,
            num_blocks=-(-options.window // 16),
            **form,
        )
        losses, agreements = [], []
        for index, window in enumerate(windows):
            logits = read(decoder, window)
            chosen = logits.argmax(axis=1)
            if name == "fp32":
                best.append(chosen)
            agreements.append(chosen == best[index])
            # -log softmax(x)_i = log(sum(exp(x - max))) + max - x_i
            peaks = logits.max(axis=1)
            totals = np.log(np.exp(logits - peaks[:, np.newaxis]).sum(axis=1)) + peaks
            losses.append(totals[:-1] - logits[np.arange(len(window) - 1), window[1:]])
        perplexity, agreement = np.exp(np.concatenate(losses).mean()), np.concatenate(agreements).mean()
        print(f"{name:40} perplexity {perplexity:8.3f}   same first token {agreement:7.2%}", flush=True)
        decoder.close()


if __name__ == "__main__":
    main()
