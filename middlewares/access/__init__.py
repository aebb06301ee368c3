"""The `access` stage: who may do what, decided by one rule for calls and for lists (architecture 1.14)."""
