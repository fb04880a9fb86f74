"""What is measured: models from the disk, or of random weights in well-known shapes over random caches."""
