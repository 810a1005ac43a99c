"""Benchmarks that print the figures quoted in the README; one command each."""
