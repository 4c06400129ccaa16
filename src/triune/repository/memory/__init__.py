"""The memory of loaded models: how much each is charged with, unloading models to make room for others, and loading
them again before requests need them.
"""
