"""How media become the numbers that networks read, and the store that keeps them."""
