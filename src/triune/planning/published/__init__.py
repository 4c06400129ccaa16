"""Published architectures written as operations, to compare the cost model with published measurements.

Shapes are those of the papers and of the checkpoints' configs; there are no weights. Each file has one family of
architectures.
"""
