"""An HTTP/1.1 client for one origin: what the call path to an upstream needs, and nothing else."""
