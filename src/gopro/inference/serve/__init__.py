"""`gopro serve`: a trained run over HTTP, with a page to try it on. Needs the extra `serve`.

A request goes app → uploads (its form, within the limits) → service (decodes, puts each image in the queue) → batcher
(one thread, images of all clients together) → engine (image tower, heads), and back.
"""
