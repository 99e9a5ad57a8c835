"""Steps of the pipeline: pure functions from event to answer."""
