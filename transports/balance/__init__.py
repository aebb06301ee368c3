"""Sink `balance`: a group of equal upstreams behind one name."""
