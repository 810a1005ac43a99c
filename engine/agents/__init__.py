"""Researcher, Engineer and Analyst: one protocol, several implementations."""
