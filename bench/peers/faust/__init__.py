"""The job in Faust."""
