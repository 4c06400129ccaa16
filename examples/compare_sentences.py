"""How alike are two sentences? MiniLM over gRPC; both requests travel at once, and the server may batch them.

    python examples/compare_sentences.py "A cat sits on the mat." "There is a cat on the rug."

The tokenizer is the one beside the model, in the repository that `triune demo` built.
"""

import argparse
import os
import queue
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput

MAX_TOKENS = 256


def main() -> None:
    """Encode both sentences, and print the cosine of their embeddings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sentences", nargs=2, metavar="SENTENCE")
    parser.add_argument("--url", default="127.0.0.1:8001")
    parser.add_argument("--repository", type=Path, default=Path(os.environ.get("TRIUNE_REPOSITORY", "demo")))
    options = parser.parse_args()
    path = options.repository / "minilm" / "tokenizer.json"
    if not path.exists():
        parser.error(f"{path} is missing: name the folder that `triune demo` built with --repository")
    tokenizer = Tokenizer.from_file(str(path))
    # A sentence is as long as it is: the server pads those that share a batch.
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)

    answers: queue.Queue = queue.Queue()
    with InferenceServerClient(options.url) as client:
        for sentence in options.sentences:
            client.async_infer(
                "minilm",
                inputs_of(tokenizer, sentence),
                callback=lambda result, error: answers.put((result, error)),
                outputs=[InferRequestedOutput("sentence_embedding")],
            )
        embeddings = []
        for _ in options.sentences:
            result, error = answers.get(timeout=60)
            if error is not None:
                raise error
            embeddings.append(result.as_numpy("sentence_embedding")[0])

    # Embeddings have length 1, so their product is the cosine; the order of the two does not matter.
    print(f"{options.sentences[0]}\n{options.sentences[1]}\n  cosine similarity {np.dot(*embeddings):.3f}")


def inputs_of(tokenizer: Tokenizer, sentence: str) -> list[InferInput]:
    """The sentence as MiniLM's three inputs, INT64[1, tokens]."""
    encoding = tokenizer.encode(sentence)
    inputs = []
    for name, values in (
        ("input_ids", encoding.ids),
        ("attention_mask", encoding.attention_mask),
        ("token_type_ids", encoding.type_ids),
    ):
        tensor = InferInput(name, [1, len(values)], "INT64")
        tensor.set_data_from_numpy(np.array([values], np.int64))
        inputs.append(tensor)
    return inputs


if __name__ == "__main__":
    main()
