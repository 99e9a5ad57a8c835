"""Whole programs together."""
