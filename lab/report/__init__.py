"""The report: a page with figures, and each figure as SVG, PNG and CSV, made from result files alone."""
