"""When does somebody speak? Silero VAD over gRPC, its state going back and forth with each call.

    python examples/detect_speech.py SOUND.wav

The file holds 16-bit samples at 16 kHz, one channel.
"""

import argparse
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput

from triune.zoo.silero_vad import NUM_CONTEXT_SAMPLES, NUM_SAMPLES, SAMPLE_RATE


def main() -> None:
    """Listen to the file 32 ms at a time, and print from when to when there is speech."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sound", type=Path)
    parser.add_argument("--url", default="127.0.0.1:8001")
    options = parser.parse_args()
    try:
        samples = read_samples(options.sound)
    except (OSError, EOFError, wave.Error) as error:
        parser.error(f"{options.sound}: {error}")

    begin = None
    num_found = 0
    with InferenceServerClient(options.url) as client:
        for seconds, probability in probabilities(client, samples):
            if begin is None and probability > 0.5:
                begin = seconds
            # Lower than where speech began, so that a pause between two words does not end it.
            elif begin is not None and probability < 0.35:
                print(f"  speech from {begin:.2f} s to {seconds:.2f} s")
                begin = None
                num_found += 1
    if begin is not None:
        print(f"  speech from {begin:.2f} s to the end")
    elif not num_found:
        print("  no speech")


def read_samples(path: Path) -> np.ndarray:
    """The sound as FP32 from -1 to 1."""
    with wave.open(str(path)) as file:
        if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (SAMPLE_RATE, 1, 2):
            raise wave.Error("expected 16-bit samples at 16 kHz, one channel")
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768


def probabilities(client: InferenceServerClient, samples: np.ndarray) -> Iterator[tuple[float, float]]:
    """For each 32 ms: when they begin, and how likely it is that they hold speech."""
    samples = np.pad(samples, (NUM_CONTEXT_SAMPLES, -len(samples) % NUM_SAMPLES))
    state = np.zeros((2, 1, 128), np.float32)
    for begin in range(0, len(samples) - NUM_CONTEXT_SAMPLES, NUM_SAMPLES):
        window = samples[None, begin : begin + NUM_CONTEXT_SAMPLES + NUM_SAMPLES]
        rate = np.array([SAMPLE_RATE], np.int64)
        inputs = []
        for name, array, datatype in (("input", window, "FP32"), ("state", state, "FP32"), ("sr", rate, "INT64")):
            tensor = InferInput(name, list(array.shape), datatype)
            tensor.set_data_from_numpy(array)
            inputs.append(tensor)
        result = client.infer("silero_vad", inputs)
        state = result.as_numpy("stateN")
        yield begin / SAMPLE_RATE, result.as_numpy("output").item()


if __name__ == "__main__":
    main()
