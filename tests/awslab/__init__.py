"""AWS for tests: moto's server over HTTP, with faults on demand."""
