"""`validate`: arguments and structured results against the schemas of their tools."""
