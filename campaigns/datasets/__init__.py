"""Public datasets, each turned into a table that a campaign reads."""
