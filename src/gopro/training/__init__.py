"""Making a run: the training loop, and what makes it resumable, repeatable and fit for several devices."""
