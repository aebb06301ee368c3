"""The two eras as adapters at the edges: nothing else in the code base knows about handshakes and sessions."""
