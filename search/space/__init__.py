"""Which recipes are searched: genes and spaces."""
