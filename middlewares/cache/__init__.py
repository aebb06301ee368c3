"""The stage `cache`: answers that were given before, while they are good."""
