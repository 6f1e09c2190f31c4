"""How long what cannot be run here would take: a model fitted to the runs, and its error on runs not seen."""
