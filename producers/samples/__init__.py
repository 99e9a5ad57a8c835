"""Signed sample events: what the four kinds of sender really post, varied by a seed."""
