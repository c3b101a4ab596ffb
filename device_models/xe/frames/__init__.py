"""Frames between functions: programs for a guest that draw frames on one function and show them on another."""
