"""What stands at both ends of a gateway in the matrix: clients, upstreams, and what they ask of each other."""
