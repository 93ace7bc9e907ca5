"""First floor: one room per provider, no doors between them."""
