"""From what came to what is answered: typed rows, scores beside them, whole files piece by piece."""
