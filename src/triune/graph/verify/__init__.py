"""Is a converted model the one that it was made of? Both compute the same inputs, and a verdict tells."""

from triune.graph.verify.given import check_given
from triune.graph.verify.onnx_model import OnnxModel
from triune.graph.verify.samples import samples_of
from triune.graph.verify.verdict import OutputVerdict, Verdict
from triune.graph.verify.verify import Compute, verify

__all__ = ["Compute", "OnnxModel", "OutputVerdict", "Verdict", "check_given", "samples_of", "verify"]
