"""Beam steps of PairLoss: thin PTransforms and DoFns over plain functions on chunks."""
