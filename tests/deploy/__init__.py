"""What the files of the image and the stack promise, without an engine."""
