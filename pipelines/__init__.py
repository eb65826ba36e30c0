"""The pipelines, the runner that executes them, and the ``updraft`` command line."""
