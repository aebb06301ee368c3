"""What makes a configuration run: chains, pipelines, deadlines, the supervisor and the engine."""
