"""The page's server: routes, what it refuses, uploads, and the event streams."""
