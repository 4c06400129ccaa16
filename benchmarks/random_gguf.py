"""Writes a GGUF file of a LLaMA of 1.1 billion parameters with random weights in Q4_0, for `llm.py`.

Usage:
    random_gguf.py SMOLLM2.gguf TARGET.gguf

Shapes: TinyLlama-1.1B's (22 layers, 2,048 wide, 32 heads with 4 for keys and values, 5,632 within feed-forward layers),
with the tokenizer and context of SMOLLM2.gguf, so that every engine reads texts as for that model. Its answers mean
nothing, and its times are those of any weights.
"""

import argparse

import gguf
import numpy as np
from numpy.typing import NDArray

LAYERS, WIDTH, INNER, HEADS, KEY_HEADS = 22, 2048, 5632, 32, 4
BLOCK = 32
"""The weights of a block of Q4_0: one scale in fp16, and 4 bits for each weight."""
FILE_OF_Q4_0 = 2

SHAPE = {
    "llama.block_count": LAYERS,
    "llama.embedding_length": WIDTH,
    "llama.feed_forward_length": INNER,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KEY_HEADS,
    "llama.rope.dimension_count": WIDTH // HEADS,
    "general.file_type": FILE_OF_Q4_0,
}


def packed(rng: np.random.Generator, rows: int, columns: int) -> NDArray[np.uint8]:
    """A random matrix in Q4_0, UINT8 [rows, bytes of a row], whose products keep the size of their operand: the numbers
    of 4 bits have a standard deviation of 4.6.
    """
    blocks = rng.integers(0, 256, (rows, columns // BLOCK, 2 + BLOCK // 2), np.uint8)
    blocks[..., :2] = np.frombuffer(np.float16(1 / (4.6 * columns**0.5)).tobytes(), np.uint8)
    return blocks.reshape(rows, -1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("target")
    args = parser.parse_args()
    source = gguf.GGUFReader(args.source)
    writer = gguf.GGUFWriter(args.target, "llama")
    for field in source.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        is_array = field.types[0] is gguf.GGUFValueType.ARRAY
        value = SHAPE.get(field.name, field.contents())
        writer.add_key_value(field.name, value, field.types[0], sub_type=field.types[-1] if is_array else None)
    rng = np.random.default_rng(0)
    keys = WIDTH // HEADS * KEY_HEADS
    matrices = {"token_embd": (len(source.fields["tokenizer.ggml.tokens"].data), WIDTH)}
    norms = ["output_norm"]
    for layer in range(LAYERS):
        name = f"blk.{layer}"
        norms += [f"{name}.attn_norm", f"{name}.ffn_norm"]
        matrices |= {
            f"{name}.attn_q": (WIDTH, WIDTH),
            f"{name}.attn_k": (keys, WIDTH),
            f"{name}.attn_v": (keys, WIDTH),
            f"{name}.attn_output": (WIDTH, WIDTH),
            f"{name}.ffn_gate": (INNER, WIDTH),
            f"{name}.ffn_up": (INNER, WIDTH),
            f"{name}.ffn_down": (WIDTH, INNER),
        }
    for name, (rows, columns) in matrices.items():
        writer.add_tensor(f"{name}.weight", packed(rng, rows, columns), raw_dtype=gguf.GGMLQuantizationType.Q4_0)
    for name in norms:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
