"""What a stage tells MLflow, and where the store is."""
