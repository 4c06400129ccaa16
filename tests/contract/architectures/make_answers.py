"""Makes answers.npz and models.json: what the cases are and compute by Hugging Face's transformers, which shares no
code with Triune.

Run it where torch==2.13.0 and transformers==5.24.0 are installed.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from hugging_face import CASES, NUM_WRITTEN, REPETITION_PENALTY, inputs, weight

HERE = Path(__file__).parent


def model_of(class_name: str, options: dict[str, Any]) -> Any:
    """The model in fp32, with its attention written out, and the seeded weights."""
    kind = getattr(transformers, class_name)
    model = kind(kind.config_class(**options, attn_implementation="eager")).eval().float()
    model.config.architectures = [class_name]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(weight(name, tuple(parameter.shape))))
    return model


def outputs_of(class_name: str, model: Any) -> dict[str, Any]:
    """The outputs of the graphs by name; the encoder's are of both texts, filled up."""
    given = {name: torch.from_numpy(values) for name, values in inputs().items()}
    text = {"input_ids": given["input_ids"], "attention_mask": given["attention_mask"]}
    targets = {"decoder_input_ids": given["decoder_input_ids"]}
    if class_name.startswith("Bert"):
        result = model(**text, token_type_ids=given["token_type_ids"])
        names = ("last_hidden_state", "pooler_output") if class_name == "BertModel" else ("logits",)
        return {name: getattr(result, name) for name in names}
    result = model(**(text if class_name.startswith("T5") else {"input_features": given["input_features"]}), **targets)
    return {"last_hidden_state": result.encoder_last_hidden_state, "logits": result.logits}


def written_of(model: Any) -> np.ndarray:
    """The most probable tokens that T5 writes of each text, read by itself, with a penalty for those that it wrote
    before: [texts, NUM_WRITTEN]. Without the penalty, random weights write one token again and again.
    """
    given, penalty = inputs(), transformers.RepetitionPenaltyLogitsProcessor(REPETITION_PENALTY)
    written: list[list[int]] = []
    for text, mask in zip(given["input_ids"], given["attention_mask"].astype(bool), strict=True):
        states = model.encoder(torch.from_numpy(text[mask])[None])
        tokens = [model.config.decoder_start_token_id]
        while len(tokens) <= NUM_WRITTEN:
            ids = torch.tensor([tokens])
            logits = penalty(ids, model(encoder_outputs=states, decoder_input_ids=ids).logits[:, -1])[0]
            best = logits.topk(2).values
            assert best[0] - best[1] > 1e-3, "another implementation may take the other token"
            tokens.append(int(logits.argmax()))
        written.append(tokens[1:])
    return np.array(written)


if __name__ == "__main__":
    answers: dict[str, np.ndarray] = {}
    models: dict[str, Any] = {}
    for case, (class_name, options) in CASES.items():
        model = model_of(class_name, options)
        shapes = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
        models[case] = {"config": model.config.to_diff_dict(), "tensors": shapes}
        with torch.no_grad():
            for name, values in outputs_of(class_name, model).items():
                answers[f"{case}: {name}"] = values.numpy()
                print(f"{case}: {name} {list(values.shape)}, {values.abs().mean():.3f} on average")
            if class_name.startswith("T5"):
                answers[f"{case}: written"] = written_of(model)
                print(f"{case}: writes {answers[f'{case}: written'].tolist()}")
    np.savez_compressed(HERE / "answers.npz", **answers)
    (HERE / "models.json").write_text(json.dumps(models, sort_keys=True) + "\n")
