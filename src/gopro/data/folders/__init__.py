"""The user's own folders: their images, classes, parts, domains and label files."""
