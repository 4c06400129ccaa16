from pathlib import Path

import numpy as np
import pytest

from triune.engine.speech.mel import WINDOW_FRAMES, log_mel
from unit.engine.speech.make_features import signal

ANSWERS = np.load(Path(__file__).parent / "features.npz")


@pytest.mark.parametrize(("bands", "seconds"), [(80, 4.7), (128, 30.0)])
def test_features_are_those_of_transformers(bands: int, seconds: float) -> None:
    features = log_mel(signal(seconds), bands)
    assert features.shape == (bands, WINDOW_FRAMES)
    np.testing.assert_allclose(features[:, ::31], ANSWERS[str(bands)], atol=2e-4)
    # A constant would not pass.
    assert features.std() > 0.1


def test_silence_has_features() -> None:
    assert np.isfinite(log_mel(np.zeros(0, np.float32), 80)).all()
