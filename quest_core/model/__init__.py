"""A model: from its name or file to its weights on the device, with its RoPE and the tokens that end its answers."""
