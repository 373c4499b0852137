"""Judge runs by rules."""
