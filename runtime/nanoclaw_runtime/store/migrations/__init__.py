"""Every change of the tables, in order; run when the store is opened."""
