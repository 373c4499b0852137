"""How PairLoss is deployed: one directory for each engine."""
