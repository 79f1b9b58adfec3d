"""The command that folds a model, proves it and says what became of every norm."""
