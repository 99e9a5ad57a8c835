"""Benchmarks: each compares Penstock with a control in the same run and writes build/figures/<name>.json."""
