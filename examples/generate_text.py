"""Generate text with a transformer whose cache of keys and values, and whose attention, are configured.

python examples/generate_text.py demo/smollm2/1/model.gguf "The capital of France is"
"""

import argparse
from pathlib import Path

import triune


def main() -> None:
    """Stream an answer, with a cache of a given size and type, and print what computed it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a GGUF file, or a directory of Hugging Face's form")
    parser.add_argument("prompt")
    parser.add_argument("--unit", default=None, help="cpu, amx or gpu; by default the best for transformers")
    parser.add_argument("--max-tokens", type=int, default=24)
    options = parser.parse_args()
    engine = triune.Engine(
        options.model,
        options.unit,
        context_tokens=1024,  # prompt and answer together
        cache_bytes=64 << 20,  # keys and values of all sequences, in blocks that sequences with the same prefix share
        cache_type="int8",  # a quarter of the memory of fp32, and less to read for each token
    )
    with engine:
        print(options.prompt, end="", flush=True)
        for text in engine.stream(options.prompt, max_tokens=options.max_tokens, temperature=0):
            print(text, end="", flush=True)
        answer = engine.generate(options.prompt, max_tokens=options.max_tokens, temperature=0)
    usage = answer.usage
    for placement in usage.placements:
        print(f"\n{placement.unit.value}, {placement.runtime}, {placement.precision}: {placement.reason}")
    print(
        f"{len(answer.tokens)} tokens in {usage.total_ns / 1e9:.2f} s, {usage.num_cached_tokens} of the prompt cached"
    )


if __name__ == "__main__":
    main()
