"""Extractive reading of prompts: what the embedded provider and the model stub answer with, instead of a model."""
