"""Published architectures as operations, for comparing the cost model with published measurements.

Shapes are those of the papers and of the checkpoints' configs; there are no weights. One family a file.
"""
