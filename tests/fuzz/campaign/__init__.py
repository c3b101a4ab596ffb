"""Fuzzing that goes on for as long as one likes: `python -m tests.fuzz.campaign`, see `docs/fuzzing.md`."""
