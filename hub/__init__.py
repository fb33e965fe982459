"""hub: captures to a durable log to materializations, in one process."""
