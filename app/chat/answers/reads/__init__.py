"""Which pages an answer looks at, while it is written and at its end, and how that is said."""
