"""Compress a decoder's weights: find the matrices, round them to fewer bits, compare the predictions on text, and write
a checkpoint.
"""
