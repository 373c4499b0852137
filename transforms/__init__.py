"""The computation of PairLoss, a folder per stage. `steps` makes Beam steps of it."""
