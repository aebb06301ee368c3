"""Between the eras: clients of one kind of revision at upstreams that speak only the other (docs/eras.md)."""
