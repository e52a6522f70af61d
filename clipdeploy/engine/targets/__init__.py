"""What a version and a GPU take of a graph, which of them build it wrong, and the graph written safely.

The tables of devices, GPUs and operators carry their sources, row by row.
"""
