"""Several processes for one configuration (`run.workers`): a supervisor holds the sockets, workers serve."""
