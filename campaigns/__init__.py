"""What a user writes: the campaign file, the example campaigns and the data they read."""
