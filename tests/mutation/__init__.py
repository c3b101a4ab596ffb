"""Mutation testing of the modules that isolation and verdicts rest on: `python -m tests.mutation`, see docs/testing.md."""
