"""A run: its settings, its folder, its results, and how it gets to and from the Hugging Face Hub. Trains nothing."""
