"""The key that a server asks for when others than its own machine can reach it."""
