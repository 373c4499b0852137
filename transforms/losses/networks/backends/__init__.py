"""The backends that compute a network's features: TensorFlow, and ncnn."""
