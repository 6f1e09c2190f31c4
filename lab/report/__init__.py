"""Results as figures: from the result files alone, one page, and each figure as SVG, PNG and CSV."""
