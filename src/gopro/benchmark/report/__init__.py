"""The report on a benchmark's results: tables, plots and one HTML page."""
