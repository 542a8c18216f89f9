"""Results of a probe: tables, figures and the HTML page."""
