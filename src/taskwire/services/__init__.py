"""What the product does: tasks, accounts, running providers' work, retention. Owns the ports it needs."""
