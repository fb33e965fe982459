"""The methods of the mapping language, one module a category."""
