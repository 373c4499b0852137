"""Score and optimize the pairs of a chunk: decode, batch by shape, evaluate."""
