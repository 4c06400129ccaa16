"""Verify a conversion: run the model and the converted program on the same inputs, and compare their outputs."""

from triune.graph.verify.given import check_given
from triune.graph.verify.onnx_model import OnnxModel
from triune.graph.verify.samples import narrow_samples_of, samples_of, sized_samples_of
from triune.graph.verify.verdict import Answers, OutputVerdict, Verdict
from triune.graph.verify.verify import Compute, verify

__all__ = [
    "Answers",
    "Compute",
    "OnnxModel",
    "OutputVerdict",
    "Verdict",
    "check_given",
    "narrow_samples_of",
    "samples_of",
    "sized_samples_of",
    "verify",
]
