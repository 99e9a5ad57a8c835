"""The hand-over of patient events to a provider's batch API; a process of its own."""
