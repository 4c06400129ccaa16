"""Find patterns of nodes: attention, rotary embeddings, normalizations, linear layers.

Each module finds one pattern, in every form in which exporters write it. A matcher gets the `Index` of a graph and a
node at which the pattern may begin or end. It returns a frozen dataclass with the names of values (queries, keys,
mask), with numbers (scale, epsilon), and with the nodes of the pattern in the graph's order. It returns None if the
node does not belong to the pattern, and raises `NoMatchError` if the nodes resemble the pattern but differ in a detail.
Matchers change nothing; `triune.graph.ane` and `triune.graph.fused` replace the patterns.
"""
