"""What the models are worth: on known truth, on real data, and how fast they train."""
