"""Models: loading one, which there are on this machine, what one needs, and changing from one to another."""
