"""Hidden states of a model as features of answers."""
