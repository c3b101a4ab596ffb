"""Scenarios for Battlemage's drivers, and the program that plays exporter and importer in a guest."""
