"""Laws of final losses: tables in; predictions with intervals, and refusals, out."""
