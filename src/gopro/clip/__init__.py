"""The frozen CLIP model and what it computes: image features, and text features of prompts with a learned context."""
