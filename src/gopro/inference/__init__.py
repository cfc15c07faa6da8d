"""A trained run in use: classify, evaluate, sort, export and serve. Never trains."""
