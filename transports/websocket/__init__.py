"""What both ends of a WebSocket share, and the parts of the source: frames, wire, handshake, the peer."""
