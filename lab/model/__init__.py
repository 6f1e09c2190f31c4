"""A model of migration times, fitted to runs, for migrations that cannot be run here."""
