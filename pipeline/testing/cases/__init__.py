"""The runner of tests that are written as data: `tests:` of a configuration, or a file beside it."""
