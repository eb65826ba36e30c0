"""The nets, one small file a paper; a module with an ``ENTRY`` is in the catalogue."""
