"""What supports an answer: passages of the documents, and where the model looked."""
