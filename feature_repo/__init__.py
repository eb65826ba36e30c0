"""The Feast repository of a campaign: features as they were when a decision was made, and fresh ones."""
