"""Writes `features.npz`: what transformers' WhisperFeatureExtractor makes of a signal. Needs `transformers` and numpy.

python tests/unit/engine/speech/make_features.py
"""

from pathlib import Path

import numpy as np

RATE = 16_000


def signal(seconds: float) -> np.ndarray:
    """A chirp with noise."""
    time = np.arange(int(seconds * RATE)) / RATE
    noise = np.random.default_rng(7).standard_normal(len(time))
    return (0.4 * np.sin(2 * np.pi * (100 + 90 * time) * time) + 0.02 * noise).astype(np.float32)


def main() -> None:
    from transformers import WhisperFeatureExtractor  # pyright: ignore

    found = {}
    for bands, seconds in ((80, 4.7), (128, 30.0)):
        extractor = WhisperFeatureExtractor(feature_size=bands)
        features = extractor(signal(seconds), sampling_rate=RATE, return_tensors="np").input_features[0]
        # Every 31st frame, which keeps the file small.
        found[f"{bands}"] = features[:, ::31].astype(np.float32)
    np.savez_compressed(Path(__file__).parent / "features.npz", **found)


if __name__ == "__main__":
    main()
