"""Other people's weight files: read safely, renamed by tables, and checked against the model."""
