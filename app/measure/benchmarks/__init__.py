"""`bench`: speed, measured beside the rivals in the same process, after the result has been checked."""
