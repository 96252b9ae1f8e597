"""Benchmarks: a written contract, and the networks as published to compare with."""
