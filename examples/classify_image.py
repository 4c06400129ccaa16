"""What is in this picture? EfficientNet-Lite0 over HTTP, answered with labels by the classification extension.

    python examples/classify_image.py [PICTURE]

Without a picture it takes a sample: a cat.
"""

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from triune.zoo.packages import PackageCache
from triune.zoo.samples import read_picture

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


def main() -> None:
    """Send the picture, and print the three likeliest labels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", nargs="?", type=Path)
    parser.add_argument("--url", default="127.0.0.1:8000")
    options = parser.parse_args()
    content = options.picture.read_bytes() if options.picture else read_picture("chelsea", PackageCache())

    image = InferInput("image", [1, 3, 224, 224], "FP32")
    image.set_data_from_numpy(prepare(Image.open(io.BytesIO(content))))
    wanted = InferRequestedOutput("probabilities", class_count=3)
    with InferenceServerClient(options.url) as client:
        result = client.infer("efficientnet_lite0", [image], outputs=[wanted])

    print(options.picture or "the sample picture")
    for answer in result.as_numpy("probabilities")[0]:
        probability, _, label = answer.decode().split(":", 2)
        print(f"  {float(probability):4.0%}  {label}")


def prepare(picture: Image.Image) -> np.ndarray:
    """The picture's middle as the model wants it: FP32[1,3,224,224], normalized with ImageNet's mean and deviation."""
    picture = picture.convert("RGB")
    scale = 256 / min(picture.size)
    width, height = (round(size * scale) for size in picture.size)
    left, top = (width - 224) // 2, (height - 224) // 2
    picture = picture.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + 224, top + 224))
    normalized = (np.asarray(picture, np.float32) / 255 - MEAN) / DEVIATION
    return np.ascontiguousarray(normalized.transpose(2, 0, 1)[None])


if __name__ == "__main__":
    main()
