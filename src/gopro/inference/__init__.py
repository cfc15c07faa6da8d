"""Use a trained run: classify, evaluate, sort, export and serve. Nothing here trains."""
