"""The backends that compute a network's features besides TensorFlow."""
