"""Time travel: tapes of what passed a gateway's edges, and what can be done with them."""
