"""Image features of views: encoded once, stored on disk for all runs, and deleted when unused."""
