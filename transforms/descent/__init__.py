"""Move generated images towards their targets by gradient descent, many at once. No Beam here."""
