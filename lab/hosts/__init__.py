"""The machines of the lab, from their description to labs that are up."""
