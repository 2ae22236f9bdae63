"""How engines of every kind are found and made."""
