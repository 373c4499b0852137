"""Read finished runs and set them against each other."""
