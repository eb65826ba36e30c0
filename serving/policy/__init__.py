"""The policy: who gets which treatment within a budget, and what is tried at random. Pure NumPy."""
