"""Rules about the code base itself: imports, sizes, words."""
