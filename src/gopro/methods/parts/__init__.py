"""What methods are made of, one part per file: losses, prompts, zero-shot text features, class means, a regression."""
