"""Moving a guest: both ends of xl's migration, who owns the guest, and recovery."""
