"""Find the nodes whose rounding to fp16 makes a conversion wrong, so that they compute in fp32.

`graph.half` finds what fp16 cannot hold in a graph alone. What it cannot see are sums whose terms cancel, and numbers
that become small on the way: whether that matters depends on the numbers. So if a comparison finds a wrong output, the
graph is computed in fp32 and, with every result rounded, in fp16 (`simulation`), and the first nodes whose results
differ too much compute in fp32 together with those that lead to them (`search`, `ancestors`), until the outputs are
right. `judge` says what is too much. `gates` finds the branches that no sample took.
"""

from triune.graph.blame.gates import Gates
from triune.graph.blame.verified import Verified, verify_halved

__all__ = ["Gates", "Verified", "verify_halved"]
