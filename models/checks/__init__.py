"""Checks that stop or warn a run: the sample ratio of a trial, and drift."""
