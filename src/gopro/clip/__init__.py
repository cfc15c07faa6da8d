"""The frozen CLIP model and what it computes: image features, and text features of prompts with a learned context.

The model itself is in `backbone`. The packages hold the rest: `weights` (files of weights, models that come with
gopro), `text` (tokens, text tower, prompts), `features` (image features of views, and their store on disk) and
`faster_layers`.
"""
