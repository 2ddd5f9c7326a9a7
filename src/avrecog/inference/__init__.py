"""A trained model made ready to predict."""
