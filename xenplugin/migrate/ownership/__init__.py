"""Who owns the guest at each instant, and the records that say so."""
