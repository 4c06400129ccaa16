"""Makes answers.npz: what CTranslate2 itself computes with the packaged Whisper tiny.en.

Run it where ctranslate2==4.8.5 is installed: `python make_answers.py FOLDER`, with the package's folder `model`.
"""

import sys
from pathlib import Path

import ctranslate2
import numpy as np

PROMPT = [50257, 50362]
"""Start of transcript, no timestamps."""


def features() -> np.ndarray:
    """FP32 [1, 80, 3000], about as large as a spectrogram."""
    rng = np.random.default_rng(11)
    bands, frames = np.arange(80)[:, None] / 80, np.linspace(0, 1, 3000)
    waves = 0.3 * np.sin(2 * np.pi * (bands * 3 + frames * 40))
    return (waves + 0.2 * rng.standard_normal((80, 3000))).astype(np.float32)[None]


if __name__ == "__main__":
    model = ctranslate2.models.Whisper(sys.argv[1], device="cpu", compute_type="float32")
    sound = ctranslate2.StorageView.from_array(features())
    states = np.array(model.encode(sound, to_cpu=True))[0]
    (found,) = model.generate(
        sound, [PROMPT], beam_size=1, max_length=len(PROMPT) + 1, suppress_blank=False, suppress_tokens=None,
        return_logits_vocab=True,
    )  # fmt: skip
    logits = np.array(found.logits[0][0])
    print(states.shape, logits.shape, logits.argmax(), found.sequences)
    np.savez_compressed(Path(__file__).parent / "answers.npz", states=states[::100, ::8], logits=logits[::32])
