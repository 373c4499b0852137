"""The losses of a pair of images. No Beam in here: arrays in, arrays out."""
