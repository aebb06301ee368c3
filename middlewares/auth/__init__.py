"""What the auth stages are made of: credentials read, tokens verified, keys fetched, refusals worded."""
