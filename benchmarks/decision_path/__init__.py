"""The path of a decision, from a client to its answer: simulated event by event, and checked against the real one."""
