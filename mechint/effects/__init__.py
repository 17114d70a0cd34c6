"""What components write, and what changes when they are taken away."""
