"""Encoded images to RGB arrays: untrusted bytes in, pixels and notes out. No Beam here."""
