"""Linear: products of a decode step with a layer's matrices."""
