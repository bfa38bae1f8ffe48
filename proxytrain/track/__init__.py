"""Seeing a sweep while it runs."""
