"""AWS for tests: moto's server over HTTP, behind a front that fails on demand."""
