"""What a queue's message may be, one file per kind; `table.py` is the one list."""
