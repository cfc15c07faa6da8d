"""What must not lose or falsify anything, tried many times on real processes, files, disks and sockets.

python -m tools.torture [NAME ...] [--times N] [--write]

Each module here that has a `run` is a part of it: `run(work, times)` yields rows. docs/reliability.md holds them.
"""
