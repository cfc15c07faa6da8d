"""The frozen text tower and what it encodes: class names in prompts, packed without padding where it can."""
