"""The science: nets, learners, metrics, training, search and the registry."""
