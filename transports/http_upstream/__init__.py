"""What the `http` sink is made of: one upstream over Streamable HTTP, in both eras."""
