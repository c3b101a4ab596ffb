"""The GuC: what its firmware does, for one GT and all functions."""
