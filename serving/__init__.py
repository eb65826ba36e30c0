"""Decisions: the policy, the event store, the Ray Serve application and batch scoring."""
