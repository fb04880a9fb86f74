"""What the GPU's operators are made of: checks, pointers, launches, a grid barrier, tiles, float8."""
