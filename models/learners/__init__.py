"""Learners that are no nets: gradient-boosted meta-learners and forests, one file each."""
