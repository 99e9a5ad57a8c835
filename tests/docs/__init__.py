"""The pages: what they show works, what they name is there."""
