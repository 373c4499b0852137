"""The PairLoss program: flags, the graph, and the commands around it."""

__version__ = "0.2.0"
