"""The stage `load_shed`: what runs, what waits, and what is refused when there is more than can be done."""
