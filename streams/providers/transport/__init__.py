"""HTTP posts to model servers: one protocol, two clients, one choice between them."""
