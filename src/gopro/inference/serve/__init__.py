"""The HTTP server of `gopro serve`, and the web page that it shows. Needs the extra `serve`.

A prediction request passes through app (routes), uploads (reads the form), service (decodes the images and waits for
the answer), batcher (queues images of all clients for one thread) and batched_inference (image tower and heads).
"""
