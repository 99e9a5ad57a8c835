"""Workers without Kafka in every weather: random features and faults on a virtual clock, and what must hold of them."""
