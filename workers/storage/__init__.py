"""The shelves: named queries and the only SQL in the house, beside `migrations`."""
