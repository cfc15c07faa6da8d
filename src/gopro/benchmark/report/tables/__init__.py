"""Tables of results: figures over seeds with their differences and intervals, and the formats they are written in."""
