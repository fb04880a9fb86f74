"""Models from the hub: which are good ones for this machine, and their download."""
