"""Tables, plots and the HTML report of a benchmark's results."""
