"""Step: all layers of one decode step and the head in one call; on a GPU a CUDA graph takes its place."""
