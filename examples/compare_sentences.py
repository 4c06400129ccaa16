"""How alike are two sentences? MiniLM over gRPC: texts in, embeddings out.

python examples/compare_sentences.py "A cat sits on the mat." "There is a cat on the rug."
"""

import argparse

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput

MODEL = "all-minilm-l6-v2"


def main() -> None:
    """Embed both sentences, and print the cosine of their embeddings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sentences", nargs=2, metavar="SENTENCE")
    parser.add_argument("--url", default="127.0.0.1:8001")
    options = parser.parse_args()
    texts = InferInput("text_input", [2], "BYTES")
    texts.set_data_from_numpy(np.array([each.encode() for each in options.sentences], np.object_))
    with InferenceServerClient(options.url) as client:
        first, second = client.infer(MODEL, [texts]).as_numpy("embedding")
    # Embeddings have length 1, so their product is the cosine.
    print(f"{options.sentences[0]}\n{options.sentences[1]}\n  cosine similarity {first @ second:.3f}")


if __name__ == "__main__":
    main()
