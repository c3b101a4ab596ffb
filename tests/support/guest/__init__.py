"""Guests of the tests that boot one, and stand-ins for guest environments of those that do not."""
