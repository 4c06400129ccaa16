"""Find the nodes whose rounding to fp16 makes a conversion wrong, so that they compute in fp32.

`graph.half` finds values that fp16 cannot hold from the graph alone. It cannot find sums whose terms cancel, nor
numbers that become small on the way: these depend on the input values. So if a comparison finds a wrong output, the
graph is computed in fp32 and, with every result rounded, in fp16 (`simulation`), and the first nodes whose results
differ too much are computed in fp32, together with the nodes before them (`search`), until the outputs are right.
`judge` says how large an error may be. `gates` finds the branches that no sample took.
"""

from triune.graph.blame.gates import Gates
from triune.graph.blame.verified import Verified, verify_halved

__all__ = ["Gates", "Verified", "verify_halved"]
