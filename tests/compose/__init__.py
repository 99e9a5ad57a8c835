"""The stack of docker-compose.yml, built and started."""
