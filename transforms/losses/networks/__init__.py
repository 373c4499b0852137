"""The networks whose features losses compare, and their weights."""
