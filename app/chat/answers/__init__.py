"""One answer: how a question is answered, what the model looked at meanwhile, and what stands beside it afterwards."""
