"""The Kubeflow components: one thin, typed step a file."""
