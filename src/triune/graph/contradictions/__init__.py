"""Models that contradict themselves: attributes, constants and shapes that do not fit together.

Such a model has no right answer. ONNX's checker does not look at shapes, its inference is not strict, and what becomes
of such a node in a program is open: an answer that is made up, or a crash. `find` walks a graph, and each other file
has the rules of one family of operators.
"""

from triune.graph.contradictions.find import contradictions, found_at

__all__ = ["contradictions", "found_at"]
