"""What a person sees while runs train."""
