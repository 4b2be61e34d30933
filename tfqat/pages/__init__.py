"""Pages: reports as HTML files that open without a network, on a phone and in dark mode."""
