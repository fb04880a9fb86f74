"""What the CPU's operators are made of: checks, compilation and its cache, threads, vectors, large memory pages."""
