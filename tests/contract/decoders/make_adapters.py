"""Makes adapters/: LoRA adapters as PEFT saves them, and the logits that it computes with each.

Run it where torch==2.13.0, transformers==5.24.0 and peft==0.21.2 are installed:
`python tests/contract/decoders/make_adapters.py`.
"""

import numpy as np
import torch
from hugging_face import ADAPTERS, CASES, STORED, token_ids, weight
from make_answers import HERE, model_of
from peft import LoraConfig, get_peft_model

if __name__ == "__main__":
    answers = {}
    for name, (case, options) in ADAPTERS.items():
        family, arguments = CASES[case]
        fan_in = {"fan_in_fan_out": True} if family == "GPT2" else {}
        model = get_peft_model(model_of(family, arguments), LoraConfig(task_type="CAUSAL_LM", **options, **fan_in))
        with torch.no_grad():
            plain = model.get_base_model()
            for key, parameter in model.named_parameters():
                if "lora_" in key:
                    parameter.copy_(torch.from_numpy(weight(f"{name} {key}", tuple(parameter.shape), is_gemma=False)))
            logits = plain(torch.from_numpy(token_ids())[None]).logits[0]
        model.eval().save_pretrained(HERE / "adapters" / name)
        (HERE / "adapters" / name / "README.md").unlink(missing_ok=True)
        answers[name] = logits.numpy()[STORED]
        print(f"{name}: {answers[name].shape}, {np.abs(answers[name]).mean():.3f} on average")
    np.savez_compressed(HERE / "adapters" / "answers.npz", **answers)
