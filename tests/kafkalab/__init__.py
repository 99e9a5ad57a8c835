"""Real Kafka for tests and for `make kafka`: a given broker, a container, or the same version's jars in one JVM."""
