"""The drawn animals: a catalog that is made on first use, without a download."""
