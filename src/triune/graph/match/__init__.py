"""Find patterns of nodes: attention, rotary embeddings, normalizations, linear layers.

Each module finds one pattern, in every form in which exporters write it. A matcher gets the `Index` of a graph and a
node at which the pattern may end, and returns a frozen dataclass: the values by name (queries, keys, mask, scale), the
numbers, and the nodes that compute it, in the graph's order. It returns None where the node is something else, and
raises `NoMatchError` where the nodes resemble the pattern but cannot be taken for it. Matchers change nothing:
`triune.graph.ane` and `triune.graph.fused` replace the patterns.
"""
