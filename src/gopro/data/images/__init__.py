"""Image files, the views made of them, and batches of views."""
