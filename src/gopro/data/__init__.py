"""Images on disk, and the labelled, augmented batches made of them. Nothing here knows a model."""
