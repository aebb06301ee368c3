"""HTTP/2 towards clients, on the `h2` package: how it is bounded, and how it meets the same endpoint as HTTP/1.1."""
