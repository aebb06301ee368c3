"""What a message is: values, the strict gate, the codec, MCP's tables and the error tree. No Trio in here."""
