"""Images on disk, and the labelled, augmented batches made of them. Nothing here knows a model.

The data set itself is in `dataset`, its draws and splits in `few_shot` and `splits`; `load_dataset` finds one by its
name, and `mixed` joins several. The packages hold the rest: `images` (files, views, batches), `folders` (the user's own
images), `published` (benchmarks and their download), `embedded` (data sets that come with gopro) and `checks`.
"""
