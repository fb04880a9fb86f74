"""What is kept on the disk between two starts."""
